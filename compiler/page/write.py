"""Writes a plan as one HTML page that opens anywhere, offline; without a script only the Gantt chart is missing."""

import os
from collections.abc import Sequence
from pathlib import Path

from trainwright.compiler.page.page import context
from trainwright.compiler.review import Verdict
from trainwright.spec.look import render as look
from trainwright.spec.plan import Plan


def write_page(plan: Plan, verdicts: Sequence[Verdict], path: Path) -> None:
    """The page is at `path`; folders on the way are made. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(render(plan, verdicts), encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def render(plan: Plan, verdicts: Sequence[Verdict]) -> str:
    """The page. All that comes from the plan is escaped, whatever it holds."""
    return look.render(Path(__file__).parent, context(plan, verdicts), {})
