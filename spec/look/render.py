"""Turns a folder's `page.html.jinja`, style sheets and scripts into one file that needs nothing from outside."""

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
    inlined = {kind: Markup(_texts(_LOOK, kind) + _texts(folder, kind)) for kind in ("css", "js")}
    return environment.get_template("page.html.jinja").render(**context, **inlined)


def _texts(folder: Path, kind: str) -> str:
    return "".join(file.read_text(encoding="utf-8") for file in sorted(folder.glob(f"*.{kind}")))
