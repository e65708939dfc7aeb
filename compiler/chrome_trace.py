"""A plan's training steps as a trace that chrome://tracing and Perfetto open (the Trace Event Format, JSON).

One process for each phase, one thread for each pipeline rank: its forward, backward and weight passes as they are
simulated, then what every rank does after the pipeline. A counter beside each rank has its memory: model states, and
activations in proportion to the micro-batches that it keeps, planned peak at the most. Microseconds from the start.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainwright.compiler.cost.schedule import Task, Timeline
from trainwright.compiler.cost.what_if import planned_timeline
from trainwright.spec.plan import Estimate, PhaseStage, Plan, RankMemory

_NAMES = {"F": "forward", "B": "backward", "W": "weights"}
# Names of colours that the format reserves; Perfetto picks its own, one for each name without its number.
_COLOURS = {"F": "rail_response", "B": "good", "W": "rail_animation"}
# What follows the pipeline on every rank, in this order, by its name in a step's parts.
_AFTER = (
    ("gradient reduction", "thread_state_iowait"),
    ("optimizer", "rail_load"),
    ("parameter gather", "thread_state_iowait"),
    ("host", "grey"),
    ("jitter", "grey"),
)


def write_trace(plan: Plan, file: Path) -> None:
    """The trace lies in `file`. Raises ValueError if the plan knows no times, OSError if it cannot be written."""
    text = json.dumps(chrome_trace(plan), separators=(",", ":"))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text + "\n", encoding="utf-8")


def chrome_trace(plan: Plan) -> dict[str, Any]:
    """The trace as plain data. Raises ValueError if the plan knows no times."""
    phases = [stage for stage in plan.stages if isinstance(stage, PhaseStage)]
    estimates = {estimate.stage: estimate for estimate in plan.estimates}
    events = [
        event
        for process, phase in enumerate(phases, start=1)
        for event in _phase(process, phase, estimates[phase.name])
    ]
    if not events:
        raise ValueError(f"how fast `{plan.hardware.name}` is is not known, so there are no times to trace")
    notes = {"plan": plan.name, "compiler": plan.compiler, "memory": "states, and activations by micro-batches kept"}
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": notes}


def _phase(process: int, phase: PhaseStage, estimate: Estimate) -> Iterator[dict[str, Any]]:
    step = estimate.step
    if step is None or not step.chunks:
        return
    line = planned_timeline(phase, step)
    title = f"{phase.name}: a step of {phase.layout.micro_batches} micro-batches"
    yield _metadata("process_name", process, 0, {"name": title})
    yield _metadata("process_sort_index", process, 0, {"sort_index": process})
    after = [(name, colour, step.parts[name]) for name, colour in _AFTER if step.parts.get(name, 0.0) > 0]
    for rank, tasks in enumerate(line.by_rank()):
        yield _metadata("thread_name", process, rank, {"name": f"pp {rank}"})
        yield _metadata("thread_sort_index", process, rank, {"sort_index": rank})
        for task in tasks:
            yield _slice(process, task, line)
        at_s = line.span_s
        for name, colour, seconds in after:
            yield _complete(process, rank, name, "step", colour, at_s, seconds, {})
            at_s += seconds
        yield from _memory(process, tasks, line, estimate.memory[rank])


def _slice(process: int, task: Task, line: Timeline) -> dict[str, Any]:
    arguments = {"micro_batch": task.micro_batch} | ({"chunk": task.chunk} if line.chunks > 1 else {})
    name, duration_s = _NAMES[task.kind], task.end_s - task.start_s
    shown = f"{name} {task.micro_batch}"
    return _complete(process, task.pipeline_rank, shown, name, _COLOURS[task.kind], task.start_s, duration_s, arguments)


def _memory(process: int, tasks: tuple[Task, ...], line: Timeline, memory: RankMemory) -> Iterator[dict[str, Any]]:
    """The counter after each change of what is kept: from a forward pass's start to its last gradient."""
    last = "W" if any(task.kind == "W" for task in tasks) else "B"
    states = memory.parameters_bytes + memory.gradients_bytes + memory.optimizer_bytes
    most = line.in_flight[memory.pipeline_rank] * line.chunks
    kept = 0
    for task in tasks:
        if task.kind not in ("F", last):
            continue
        kept += 1 if task.kind == "F" else -1
        at_s = task.start_s if task.kind == "F" else task.end_s
        arguments = {"states": states, "activations": round(memory.activations_bytes * kept / most)}
        yield {
            "ph": "C",
            "name": f"memory pp {memory.pipeline_rank} (bytes)",
            "pid": process,
            "ts": _microseconds(at_s),
            "args": arguments,
        }


def _complete(
    process: int,
    thread: int,
    name: str,
    category: str,
    colour: str,
    start_s: float,
    duration_s: float,
    arguments: dict[str, Any],
) -> dict[str, Any]:
    return {
        "ph": "X",
        "name": name,
        "cat": category,
        "cname": colour,
        "pid": process,
        "tid": thread,
        "ts": _microseconds(start_s),
        "dur": _microseconds(duration_s),
        "args": arguments,
    }


def _metadata(name: str, process: int, thread: int, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"ph": "M", "name": name, "pid": process, "tid": thread, "args": arguments}


def _microseconds(seconds: float) -> float:
    return round(seconds * 1e6, 3)
