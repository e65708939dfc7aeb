"""A phase's pipeline schedule for a terminal."""

from rich.console import Console
from rich.text import Text

from trainwright.compiler.cost.schedule import timeline
from trainwright.compiler.gantt import gantt_lines
from trainwright.spec.plan import Estimate, PhaseStage


def print_schedule(phase: PhaseStage, estimate: Estimate, console: Console) -> None:
    """The tasks of each pipeline rank over a step; nothing where there is no pipeline or its times are not known."""
    step, layout = estimate.step, phase.layout
    if layout.pipeline == 1 or step is None or not step.chunks:
        return
    line = timeline(step.chunks, layout.micro_batches, layout.schedule, step.transfer_s)
    console.print(Text(f"\nPipeline of a step: {layout.schedule}, {line.bubble:.1%} idle", "bold"))
    for row in gantt_lines(line, console.width):
        console.print(row, no_wrap=True)
