"""The difference of two plans as tables for a terminal."""

from rich.console import Console
from rich.markup import escape
from rich.text import Text

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
        lines = [stage.reason, *map(str, stage.changes)]
        state = Text(stage.state, style=_STATE_STYLES[stage.state])
        stages.add_row(stage.stage, state, escape("\n".join(line for line in lines if line)))
    console.print(stages)
    for change in difference.general:
        console.print(escape(str(change)))
    figures = table("What it costs", "phase", "figure", right=("older", "newer", "difference"))
    last = ""
    for figure in difference.figures:
        whose = figure.stage or "all"
        if last not in ("", whose):
            figures.add_section()
        first = whose if whose != last else ""
        figures.add_row(first, figure.name, _value(figure, figure.old), _value(figure, figure.new), _relative(figure))
        last = whose
    console.print(figures)
    for lost in difference.lost:
        parts = [f"{_few(lost.gpu_hours)} GPU-hours"]
        parts += [f"{lost.steps:,} steps"] if lost.steps is not None else []
        parts += [f"cost {_few(lost.cost)}"] if lost.cost is not None else []
        console.print(f"done already, of no use to the newer plan: {lost.stage}: {', '.join(parts)}")


def _value(figure: Figure, value: float | None) -> str:
    if value is None:
        return UNKNOWN
    if figure.unit == "bytes":
        return size(value)
    if figure.unit == "s":
        return format_seconds(value)
    return amount(value) if figure.unit in ("", "tokens") else _few(value)


def _few(value: float) -> str:
    """Hours or money, also of a run of minutes."""
    return amount(value) if value >= 100 else f"{value:.3g}"


def _relative(figure: Figure) -> str:
    if figure.old is None or figure.new is None:
        return UNKNOWN
    if figure.old == figure.new:
        return "="
    return f"{(figure.new - figure.old) / figure.old:+.1%}" if figure.old else "new"
