"""A hardware file improved by a run: its curves are scaled until the plan's kinds of work take what they took there.

Three factors, one for each curve: products, attention, and whatever moves memory. With the parts of a step that a
profiled step on a CPU tells (`profile/*_ms`) each kind is fitted to its own; without them one factor serves all three.
Every phase of the run counts alike, by the geometric mean of its ratios. What is left of a phase's step time is not
fitted: it is reported, and written down as the file's `residual` (measured / planned).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import geometric_mean, median

from msgspec import structs

from trainwright.compiler.cost.case import Case, parts_of
from trainwright.compiler.cost.time import step_time
from trainwright.spec.artefact import WARM_UP_STEPS, step_parts_s, step_times_s, store_folder
from trainwright.spec.device import Curve, Efficiency, HardwareFile
from trainwright.spec.plan import PhaseStage, Plan

_ROUNDS = 12  # each kind's share of a step depends a little on the others'
_CURVES = {"matmul": ("matmul", "matmul_fp8"), "attention": ("attention_forward", "attention_backward"),
           "memory": ("memory",)}  # fmt: skip
_LEAST = 0.02  # of a step, that at least moves memory: what is left of a profile may be nothing but its noise


class NothingMeasuredError(Exception):
    """The run or the file has nothing to calibrate with; the text is one sentence for the user."""


@dataclass(frozen=True)
class MeasuredPhase:
    """A phase of the run: seconds of its median step, and of the kinds of work in it as far as known."""

    stage: PhaseStage
    step_s: float
    parts_s: dict[str, float]  # matmul, attention, other; empty: unknown


@dataclass(frozen=True)
class Improved:
    """The new file, the factor by which each curve was scaled, and by phase the plan's error in percent."""

    hardware: HardwareFile
    factors: dict[str, float]
    before_pct: dict[str, float]
    after_pct: dict[str, float]


def measured_phases(plan: Plan, run: Path) -> list[MeasuredPhase]:
    """The phases of which the run's folder holds enough steps."""
    found = []
    for stage in plan.stages:
        if isinstance(stage, PhaseStage):
            folder = store_folder(run, stage)
            times_s = step_times_s(folder)[WARM_UP_STEPS:]
            if times_s:
                step_s = median(times_s)
                parts_s = step_parts_s(folder)
                whole_s = sum(parts_s.values())
                parts = {kind: part_s / whole_s * step_s for kind, part_s in parts_s.items()}
                found.append(MeasuredPhase(stage, step_s, parts))
    return found


def planned_step_s(plan: Plan, stage: PhaseStage, hardware: HardwareFile) -> float:
    """Seconds of the phase's step on that hardware, between the plan's nodes as they are joined."""
    figures = hardware.of_rank(plan.hardware.gpus_per_node)
    links = structs.replace(figures.links, network=plan.hardware.figures.links.network)
    case = Case.of(stage, on_cpu=figures.device == "cpu")
    return step_time(case, parts_of(stage), structs.replace(figures, links=links)).time_s


def improve(plan: Plan, phases: Sequence[MeasuredPhase], hardware: HardwareFile) -> Improved:
    """Raises NothingMeasuredError if there are no steps to go by, or no peak to start from."""
    if not phases:
        raise NothingMeasuredError(f"no phase of the run has more than {WARM_UP_STEPS} steps")
    precision = phases[0].stage.precision
    if hardware.peak(precision) is None or hardware.memory_bytes_per_s is None:
        raise NothingMeasuredError(f"`{hardware.name}` has no peak in {precision}: measure it first")

    def seconds(stage: PhaseStage, factors: dict[str, float]) -> float:
        return planned_step_s(plan, stage, _scaled(hardware, factors))

    none = dict.fromkeys(_CURVES, 1.0)
    factors = dict(none)
    if all(phase.parts_s for phase in phases):
        for _ in range(_ROUNDS):
            factors = _next(phases, seconds, factors)
    else:
        for _ in range(_ROUNDS):
            ratio = geometric_mean(seconds(phase.stage, factors) / phase.step_s for phase in phases)
            factors = {kind: factor * ratio for kind, factor in factors.items()}
    residual = {phase.stage.name: phase.step_s / seconds(phase.stage, factors) for phase in phases}
    return Improved(
        hardware=structs.replace(
            _scaled(hardware, factors), residual={name: float(f"{value:.4g}") for name, value in residual.items()}
        ),
        factors=factors,
        before_pct={phase.stage.name: (seconds(phase.stage, none) / phase.step_s - 1) * 100 for phase in phases},
        after_pct={name: (1 / value - 1) * 100 for name, value in residual.items()},
    )


def _next(
    phases: Sequence[MeasuredPhase],
    seconds: Callable[[PhaseStage, dict[str, float]], float],
    factors: dict[str, float],
) -> dict[str, float]:
    """Factors with which each kind of work is planned nearer to what it took."""
    ratios: dict[str, list[float]] = {kind: [] for kind in _CURVES}
    for phase in phases:
        whole_s = seconds(phase.stage, factors)
        # A kind's time is what is saved if it costs nothing: so what it hides under, or recomputes, is counted too.
        planned = {kind: whole_s - seconds(phase.stage, factors | {kind: math.inf}) for kind in _CURVES}
        rest_s = whole_s - sum(planned.values())
        other_s = phase.step_s - phase.parts_s["matmul"] - phase.parts_s["attention"]
        took = {
            "matmul": phase.parts_s["matmul"],
            "attention": phase.parts_s["attention"],
            "memory": max(other_s - rest_s, _LEAST * phase.step_s),
        }
        for kind, planned_s in planned.items():
            if planned_s > 0 and took[kind] > 0:
                ratios[kind].append(planned_s / took[kind])
    return {kind: factors[kind] * (geometric_mean(found) if found else 1.0) for kind, found in ratios.items()}


def _scaled(hardware: HardwareFile, factors: dict[str, float]) -> HardwareFile:
    """The file with each curve's shares times its factor."""
    curves = {}
    for kind, names in _CURVES.items():
        for name in names:
            curve: Curve | None = getattr(hardware.efficiency, name)
            if curve is not None:
                curves[name] = tuple((size, share * min(factors[kind], 1e9)) for size, share in curve)
    return structs.replace(hardware, efficiency=Efficiency(**curves))
