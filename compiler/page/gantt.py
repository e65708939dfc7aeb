"""The pipeline of a step as compact numbers for the page's chart."""

import json
from dataclasses import dataclass

from trainwright.compiler.cost.schedule import Task
from trainwright.compiler.cost.what_if import planned_timeline, what_ifs
from trainwright.compiler.present.tables import percent, seconds
from trainwright.spec.plan import Estimate, PhaseStage, StepTime

MOST_TASKS = 24_000  # of one phase; more would make the page heavy, so that only the step's beginning is drawn
_TICKS = 1_000_000  # a span has so many


@dataclass(frozen=True)
class Gantt:
    """`kinds`: JSON [[letter, chunk, ticks], ...]. `tasks`: JSON, a flat list a pipeline rank of (index into kinds,
    micro-batch, ticks of waiting before it). `shown`: the share of the step that they cover."""

    schedule: str
    kinds: str
    tasks: str
    count: int
    tick_s: float
    span: str
    bubble: float
    chunks: int
    micro_batches: int
    shown: float
    others: tuple["Other", ...]


@dataclass(frozen=True)
class Other:
    """What a schedule that the runtime does not have would make of the step."""

    schedule: str
    step: str
    change: str
    idle: str
    kept: str  # micro-batches, at most, on a rank


def gantt_of(phase: PhaseStage, estimate: Estimate) -> Gantt | None:
    """None where there is no pipeline or its times are not known."""
    step, layout = estimate.step, phase.layout
    if step is None or not step.chunks or layout.pipeline == 1:
        return None
    line = planned_timeline(phase, step)
    tick_s = line.span_s / _TICKS
    tasks = sorted(line.tasks, key=lambda task: task.start_s)[:MOST_TASKS]
    kinds: dict[tuple[str, int, int], int] = {}
    packed = [_pack([task for task in tasks if task.pipeline_rank == rank], kinds, tick_s)
              for rank in range(layout.pipeline)]  # fmt: skip
    return Gantt(
        schedule=layout.schedule,
        kinds=_json(list(kinds)),
        tasks=_json(packed),
        count=len(tasks),
        tick_s=tick_s,
        span=seconds(line.span_s),
        bubble=line.bubble,
        chunks=layout.virtual_pipeline,
        micro_batches=layout.micro_batches,
        shown=1.0 if len(tasks) == len(line.tasks) else tasks[-1].start_s / line.span_s,
        others=_others(phase, step),
    )


def _others(phase: PhaseStage, step: StepTime) -> tuple[Other, ...]:
    return tuple(
        Other(
            schedule=each.schedule,
            step=seconds(step.time_s - each.saved_s),
            change=f"{-each.saved_s / step.time_s:+.1%}",
            idle=percent(each.bubble),
            kept=f"{each.in_flight:g}",
        )
        for each in what_ifs(phase, step)
    )


def _pack(tasks: list[Task], kinds: dict[tuple[str, int, int], int], tick_s: float) -> list[int]:
    """Each task as three numbers; `kinds` learns those it did not know."""
    packed, free = [], 0
    for task in tasks:
        kind = (task.kind, task.chunk, round((task.end_s - task.start_s) / tick_s))
        start = round(task.start_s / tick_s)
        packed += [kinds.setdefault(kind, len(kinds)), task.micro_batch, start - free]
        free = start + kind[2]
    return packed


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
