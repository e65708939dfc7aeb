"""Planned beside measured, per phase: the figures of the plan's estimates and what the phase's metrics say.

A typical step is the median of the phase's steps after its first ones. Memory is what torch's allocator hands out at
the peak of a step on the fullest rank, by kind, as `memory/*_gb` has it from one step of each attempt. That step ran
under a profiler: the shares of its time are told as parts of the typical step.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median

from trainwright.runtime.report import quantity
from trainwright.runtime.report.facts import Curve, RunFacts, is_number
from trainwright.spec.artefact import WARM_UP_STEPS
from trainwright.spec.plan import Estimate, PhaseStage, RankMemory, StepTime


@dataclass(frozen=True)
class Figure:
    """One quantity of a phase; None where nobody planned or measured it."""

    name: str
    planned: float | None
    measured: float | None
    show: Callable[[float | None], str]
    final: bool = True  # False: the phase is not done, and this grows until it is
    between: tuple[float, float] | None = None  # the plan's interval

    @property
    def error_pct(self) -> float | None:
        """By how much the plan missed: (planned - measured) / measured; None if that cannot be said yet."""
        if self.planned is None or not self.measured or not self.final:
            return None
        return (self.planned - self.measured) / self.measured * 100

    @property
    def inside(self) -> bool | None:
        """Whether what was measured lies in the plan's interval; None if there is none, or nothing to compare."""
        if self.between is None or self.between[0] == self.between[1] or not self.measured or not self.final:
            return None
        return self.between[0] <= self.measured <= self.between[1]


@dataclass(frozen=True)
class PhaseFigures:
    stage: PhaseStage
    figures: tuple[Figure, ...]

    @property
    def layout(self) -> str:
        """Sequence length, precision and the degrees of parallelism that are more than one."""
        layout = self.stage.layout
        degrees = {
            "TP": layout.tensor,
            "PP": layout.pipeline,
            "VPP": layout.virtual_pipeline,
            "CP": layout.context,
            "DP": layout.data,
        }
        used = [f"{name} {degree}" for name, degree in degrees.items() if degree > 1] or ["1 process"]
        return " · ".join([f"{self.stage.sequence_length:,} tokens a sequence", *used, self.stage.precision])

    @property
    def mixture(self) -> str:
        """The share of each source, largest first."""
        shares = sorted(self.stage.mixture.items(), key=lambda item: -item[1])
        return ", ".join(f"{name} {share:.3g}" for name, share in shares)


def compare(facts: RunFacts) -> list[PhaseFigures]:
    """The figures of every phase of the plan, in its order."""
    estimates = {estimate.stage: estimate for estimate in facts.plan.estimates}
    curves = {curve.stage: curve for curve in facts.curves}
    return [
        PhaseFigures(stage, _figures(facts, stage, estimates.get(stage.name), curves[stage.name]))
        for stage in facts.plan.stages
        if isinstance(stage, PhaseStage)
    ]


def _figures(facts: RunFacts, stage: PhaseStage, estimate: Estimate | None, curve: Curve) -> tuple[Figure, ...]:
    done = facts.stage(stage.name).finished is not None
    parameters = facts.stage(stage.name).summary.get("parameters")
    return (
        Figure("steps", stage.steps, curve.rows[-1]["step"] if curve.rows else None, quantity.count, done),
        Figure(
            "tokens", stage.steps * stage.tokens_per_step, _last(curve, "train/consumed_tokens"), quantity.count, done
        ),
        Figure("parameters", stage.model.parameters, parameters if is_number(parameters) else None, quantity.count),
        *_time(stage, estimate, curve, done),
        *_memory(facts, estimate, curve),
    )


def _time(stage: PhaseStage, estimate: Estimate | None, curve: Curve, done: bool) -> Iterator[Figure]:
    world = stage.layout.world_size
    step = estimate.step if estimate else None
    steps_ms = [value for _, value in curve.values("perf/step_time_ms")]
    typical_ms = steps_ms[WARM_UP_STEPS:] or steps_ms
    between = (step.low_s * 1000, step.high_s * 1000) if step else None
    measured_ms = median(typical_ms) if typical_ms else None
    yield Figure("step time", step.time_s * 1000 if step else None, measured_ms, quantity.milliseconds, between=between)
    if step and measured_ms is not None and "recompute" not in step.parts:
        yield from _parts(step, curve, measured_ms)
    tgs = _median(curve, "perf/tgs")
    yield Figure("tokens/s", estimate.tokens_per_s if estimate else None, tgs * world if tgs else None, quantity.count)
    tflops = None
    if estimate and estimate.tokens_per_s is not None:
        tflops = estimate.tokens_per_s * estimate.model_flops_per_token / world / 1e12
    measured_tflops = _median(curve, "perf/tflops_per_gpu")
    yield Figure("TFLOP/s a device", tflops, measured_tflops, lambda value: quantity.number(value, 3))
    # Not the stage's own time: after a restart that is the last attempt's alone.
    yield Figure(
        "time of all steps",
        step.time_s * stage.steps if step else None,
        sum(steps_ms) / 1000 if steps_ms else None,
        quantity.duration,
        done,
        (step.low_s * stage.steps, step.high_s * stage.steps) if step else None,
    )


def _parts(step: StepTime, curve: Curve, typical_ms: float) -> Iterator[Figure]:
    """What a step's time goes into, where a step was profiled."""
    profiled = {
        kind: _last(curve, f"profile/{kind}_ms") or 0.0 for kind in ("matmul", "attention", "exchange", "other")
    }
    whole_ms = sum(profiled.values())
    if not whole_ms:
        return
    planned_s = {kind: step.parts.get(kind, 0.0) for kind in ("matmul", "attention")}
    planned_s["the rest"] = step.time_s - sum(planned_s.values())
    took_ms = {**profiled, "the rest": profiled["exchange"] + profiled["other"]}
    for kind, name in (("matmul", "products"), ("attention", "attention"), ("the rest", "the rest")):
        part_ms = took_ms[kind] / whole_ms * typical_ms
        yield Figure(f"in it: {name}", planned_s[kind] * 1000, part_ms, quantity.milliseconds)


def _memory(facts: RunFacts, estimate: Estimate | None, curve: Curve) -> Iterator[Figure]:
    ranks = estimate.memory if estimate else ()
    planned = _kinds(max(ranks, key=lambda rank: rank.allocated_bytes)) if ranks else {}
    for name, kind in _MEMORY.items():
        measured_gb = _last(curve, f"memory/{kind}_gb")
        if kind == "allocated" or measured_gb is not None:
            yield Figure(name, planned.get(kind), None if measured_gb is None else measured_gb * 1e9, quantity.size)
    if facts.plan.hardware.device == "cpu":
        resident = [value for _, value in curve.values("memory/max_active_gb")]
        yield Figure("resident memory", None, max(resident) * 1e9 if resident else None, quantity.size)


_MEMORY = {
    "memory a rank": "allocated",
    "in it: parameters": "parameters",
    "in it: gradients": "gradients",
    "in it: optimizer": "optimizer",
    "in it: the step": "step",
}


def _kinds(rank: RankMemory) -> dict[str, int]:
    """The plan's memory by the kinds that runs measure."""
    states = {
        "parameters": rank.parameters_bytes,
        "gradients": rank.gradients_bytes,
        "optimizer": rank.optimizer_bytes,
    }
    return {**states, "allocated": rank.allocated_bytes, "step": rank.allocated_bytes - sum(states.values())}


def _median(curve: Curve, key: str) -> float | None:
    values = [value for _, value in curve.values(key)]
    return median(values) if values else None


def _last(curve: Curve, key: str) -> float | None:
    values = curve.values(key)
    return values[-1][1] if values else None
