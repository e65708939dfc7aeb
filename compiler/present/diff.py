"""The difference of two plans as tables for a terminal."""

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from trainwright.compiler.changes import show
from trainwright.compiler.diff import Difference, Figure
from trainwright.compiler.figures import amount, size
from trainwright.compiler.present.tables import UNKNOWN, table
from trainwright.spec.units import format_seconds

_STATE_STYLES = {"stale": "bold yellow", "added": "bold cyan", "removed": "red", "moved": "magenta", "same": "green"}


def present_diff(difference: Difference, console: Console) -> None:
    """What differs, or one line that nothing does."""
    if difference.empty:
        console.print("no difference")
        return
    stages = table("Stages", "stage", "state", "why and what")
    for stage in difference.stages:
        lines = [stage.reason, *(f"{change.key}  {show(change.old)} -> {show(change.new)}" for change in stage.changes)]
        state = Text(stage.state, style=_STATE_STYLES[stage.state])
        stages.add_row(stage.stage, state, escape("\n".join(line for line in lines if line)))
    console.print(stages)
    for change in difference.general:
        console.print(escape(str(change)))
    figures = table("Figures", "figure", right=("older", "newer", "difference"))
    for figure in difference.figures:
        figures.add_row(figure.name, _figure(figure, figure.old), _figure(figure, figure.new), _relative(figure))
    console.print(figures)


def _figure(figure: Figure, value: float | None) -> str:
    if value is None:
        return UNKNOWN
    if figure.unit == "bytes":
        return size(value)
    if figure.unit == "s":
        return format_seconds(value)
    return amount(value)


def _relative(figure: Figure) -> str:
    if figure.old is None or figure.new is None:
        return UNKNOWN
    if figure.old == figure.new:
        return "="
    return f"{(figure.new - figure.old) / figure.old:+.1%}" if figure.old else "new"
