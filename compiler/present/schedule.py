"""A phase's pipeline schedule for a terminal."""

from rich.console import Console
from rich.text import Text

from trainwright.compiler.cost.what_if import planned_timeline, what_ifs
from trainwright.compiler.gantt import gantt_lines
from trainwright.compiler.present.tables import percent, seconds, table
from trainwright.spec.plan import Estimate, PhaseStage, StepTime


def print_schedule(phase: PhaseStage, estimate: Estimate, console: Console) -> None:
    """The tasks of each pipeline rank over a step; nothing where there is no pipeline or its times are not known."""
    step, layout = estimate.step, phase.layout
    if layout.pipeline == 1 or step is None or not step.chunks:
        return
    line = planned_timeline(phase, step)
    title = f"\nPipeline of a step: {layout.schedule}, {line.bubble:.1%} idle"
    console.print(Text(f"{title}, at most {max(line.in_flight):g} micro-batches kept", "bold"))
    for row in gantt_lines(line, console.width):
        console.print(row, no_wrap=True)
    _print_what_ifs(phase, step, console)


def _print_what_ifs(phase: PhaseStage, step: StepTime, console: Console) -> None:
    """What schedules that the runtime does not have would make of the step, if there are such for this layout."""
    others = what_ifs(phase, step)
    if not others:
        return
    made = table("\nWhat if", "schedule", right=("step", "than planned", "pipeline idle", "micro-batches kept"))
    for each in others:
        change = f"{-each.saved_s / step.time_s:+.1%}"
        made.add_row(
            each.schedule, seconds(step.time_s - each.saved_s), change, percent(each.bubble), f"{each.in_flight:g}"
        )
    made.caption = "these schedules are not among the runtime's"
    console.print(made)
