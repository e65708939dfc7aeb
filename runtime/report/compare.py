"""Planned beside measured, per phase: the figures of the plan's estimates and what the phase's metrics say."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from trainwright.runtime.report import quantity
from trainwright.runtime.report.facts import Curve, RunFacts, is_number
from trainwright.spec.plan import Estimate, PhaseStage


@dataclass(frozen=True)
class Figure:
    """One quantity of a phase; None where nobody planned or measured it."""

    name: str
    planned: float | None
    measured: float | None
    show: Callable[[float | None], str]
    final: bool = True  # False: the phase is not done, and this grows until it is

    @property
    def error_pct(self) -> float | None:
        """By how much the plan missed: (planned - measured) / measured; None if that cannot be said yet."""
        if self.planned is None or not self.measured or not self.final:
            return None
        return (self.planned - self.measured) / self.measured * 100


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
    world = stage.layout.world_size
    done = facts.stage(stage.name).finished is not None
    steps_ms = curve.values("perf/step_time_ms")
    tgs = _median(curve, "perf/tgs")
    tflops = _median(curve, "perf/tflops_per_gpu")
    planned_tflops = None
    if estimate and estimate.tokens_per_s is not None:
        planned_tflops = estimate.tokens_per_s * estimate.model_flops_per_token / world / 1e12
    parameters = facts.stage(stage.name).summary.get("parameters")
    peaks = [value for _, value in curve.values("memory/max_active_gb")]
    return (
        Figure("steps", stage.steps, curve.rows[-1]["step"] if curve.rows else None, quantity.count, done),
        Figure(
            "tokens", stage.steps * stage.tokens_per_step, _last(curve, "train/consumed_tokens"), quantity.count, done
        ),
        Figure("parameters", stage.model.parameters, parameters if is_number(parameters) else None, quantity.count),
        Figure(
            "step time",
            estimate.step_time_s * 1000 if estimate and estimate.step_time_s is not None else None,
            _median(curve, "perf/step_time_ms"),
            quantity.milliseconds,
        ),
        Figure("tokens/s", estimate.tokens_per_s if estimate else None, tgs * world if tgs else None, quantity.count),
        Figure("TFLOP/s a device", planned_tflops, tflops, lambda value: quantity.number(value, 3)),
        Figure(
            "memory a rank",
            max((rank.total_bytes for rank in estimate.memory), default=None) if estimate else None,
            max(peaks) * 1e9 if peaks else None,
            quantity.size,
        ),
        # Not the stage's own time: after a restart that is the last attempt's alone.
        Figure(
            "time of all steps",
            estimate.duration_s if estimate else None,
            sum(value for _, value in steps_ms) / 1000 if steps_ms else None,
            quantity.duration,
            done,
        ),
    )


def _median(curve: Curve, key: str) -> float | None:
    values = [value for _, value in curve.values(key)]
    return median(values) if values else None


def _last(curve: Curve, key: str) -> float | None:
    values = curve.values(key)
    return values[-1][1] if values else None
