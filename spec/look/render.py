"""Turns a folder's `page.html.jinja`, `page.css` and `page.js` into one file that needs nothing from outside."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

_LOOK = Path(__file__).parent


def render(folder: Path, context: Mapping[str, Any], filters: Mapping[str, Callable[..., Any]]) -> str:
    """The folder's page, with the shared look before its own. All of `context` is data: it is escaped."""
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)
    inlined = {kind: Markup(_text(_LOOK / f"look.{kind}") + _text(folder / f"page.{kind}")) for kind in ("css", "js")}
    return environment.get_template("page.html.jinja").render(**context, **inlined)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")
