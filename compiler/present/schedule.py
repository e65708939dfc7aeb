"""A phase's pipeline schedule for a terminal."""

from rich.console import Console
from rich.text import Text

from trainwright.spec.plan import Estimate, PhaseStage


def print_schedule(phase: PhaseStage, estimate: Estimate, console: Console) -> None:
    """The tasks of each pipeline rank over a step; nothing where there is no pipeline or its times are not known."""
    if phase.layout.pipeline == 1 or estimate.step is None:
        return
    title = f"\nPipeline of a step: {phase.layout.schedule}, {estimate.step.bubble:.1%} of its span idle"
    console.print(Text(title, "bold"))
