"""What a schedule that our runtime does not have would make of a planned step: the same passes in another order.

Only for one chunk a rank. Other numbers of chunks change the passes themselves: the search prices those.
"""

from dataclasses import dataclass

from trainwright.compiler.cost.schedule import Timeline, timeline
from trainwright.spec.plan import PhaseStage, StepTime

_SCHEDULES = ("zb-1p", "zb-2p", "gpipe")


@dataclass(frozen=True, slots=True)
class WhatIf:
    """A schedule, and the pipeline as it would be."""

    schedule: str
    saved_s: float  # of the step; below 0 it would take longer
    bubble: float
    in_flight: float  # most micro-batches kept on a rank


def planned_timeline(phase: PhaseStage, step: StepTime) -> Timeline:
    """The pipeline of a planned step. Raises ValueError if its passes' times are not known."""
    return timeline(step.chunks, phase.layout.micro_batches, phase.layout.schedule, step.transfer_s)


def what_ifs(phase: PhaseStage, step: StepTime) -> tuple[WhatIf, ...]:
    """The zero-bubble schedules and GPipe in place of 1F1B; none without a pipeline.

    Their transfers overlap, as in their authors' runtimes. The optimizer waits for all ranks, as gradient clipping
    makes it, so that part of what ZB-2p promises is not had.
    """
    if phase.layout.pipeline == 1 or phase.layout.schedule != "1f1b" or not step.chunks:
        return ()
    planned = planned_timeline(phase, step)
    found = []
    for schedule in _SCHEDULES:
        other = timeline(step.chunks, planned.micro_batches, schedule, step.transfer_s)
        found.append(WhatIf(schedule, planned.span_s - other.span_s, other.bubble, max(other.in_flight)))
    return tuple(found)
