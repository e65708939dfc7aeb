"""Planned beside measured, per training stage: the figures of the plan's estimates and what its metrics say.

A typical step is the median of the stage's steps after its first ones; of PPO, whose steps are iterations, of those in
which the actor learns. Memory is what torch's allocator hands out at
the peak of a step on the fullest rank, by kind, as `memory/*_gb` has it from one step of each attempt. That step ran
under a profiler: the shares of its time are told as parts of the typical step.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median

from trainwright.runtime.report import quantity
from trainwright.runtime.report.facts import Curve, RunFacts, is_number
from trainwright.runtime.report.ppo_facts import measured_ms, planned_ms
from trainwright.spec.artefact import WARM_UP_STEPS
from trainwright.spec.plan import (
    DpoStage,
    Estimate,
    PhaseStage,
    PpoStage,
    RankMemory,
    RewardStage,
    SftStage,
    StepTime,
    TrainingStage,
)


@dataclass(frozen=True)
class Figure:
    """One quantity of a stage; None where nobody planned or measured it."""

    name: str
    planned: float | None
    measured: float | None
    show: Callable[[float | None], str]
    final: bool = True  # False: the stage is not done, and this grows until it is
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
class StageFigures:
    stage: TrainingStage
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
    def data(self) -> str:
        """What it learns from; the share of each source, largest first, where the plan says shares."""
        match self.stage:
            case PhaseStage(mixture=mixture):
                return _shares(mixture)
            case SftStage(data=data, long_mixture=mixture, long_share=share):
                return ", ".join([*data, *([f"long text {share:.3g} of the tokens"] if mixture else [])])
            case RewardStage(data=data, patches=patches):
                return ", ".join([*data, *(["confirmed pairs of earlier rounds"] if patches else [])])
            case DpoStage(data=data):
                return ", ".join(data)
            case PpoStage(queries=queries, pretrain=pretrain):
                return f"{queries}; text: {_shares(pretrain.mixture)}" if pretrain else queries
        raise TypeError(f"nobody says what a stage of type {type(self.stage).__name__} learns from")


def _shares(mixture: dict[str, float]) -> str:
    return ", ".join(f"{name} {share:.3g}" for name, share in sorted(mixture.items(), key=lambda item: -item[1]))


def compare(facts: RunFacts) -> list[StageFigures]:
    """The figures of every training stage of the plan, in its order."""
    estimates = {estimate.stage: estimate for estimate in facts.plan.estimates}
    return [
        StageFigures(stage, _figures(facts, stage, estimates.get(stage.name), facts.curve(stage.name)))
        for stage in facts.plan.stages
        if isinstance(stage, TrainingStage)
    ]


def _figures(facts: RunFacts, stage: TrainingStage, estimate: Estimate | None, curve: Curve) -> tuple[Figure, ...]:
    done = facts.stage(stage.name).finished is not None
    counted = facts.stage(stage.name).summary.get("parameters")
    parameters = Figure("parameters", _parameters(stage), counted if is_number(counted) else None, quantity.count)
    planned_steps = stage.steps or (estimate.steps if estimate else None)
    steps = curve.steps or None
    memory = tuple(_memory(facts, estimate, curve))
    if isinstance(stage, PpoStage):
        return (
            Figure("iterations", planned_steps, steps, quantity.count, done),
            parameters,
            *_iteration(estimate, curve),
            _all_steps("time of all iterations", planned_steps, estimate, curve, done),
            *memory,
        )
    planned_tokens = planned_steps * stage.tokens_per_step if planned_steps else None
    # Where the data say how many steps there are, the plan's step is compared over the steps that there were.
    compared_steps = planned_steps or (steps if done else None)
    return (
        Figure("steps", planned_steps, steps, quantity.count, done),
        Figure("tokens", planned_tokens, _last(curve, "train/consumed_tokens"), quantity.count, done),
        parameters,
        *_time(stage, estimate, curve),
        _all_steps("time of all steps", compared_steps, estimate, curve, done),
        *memory,
    )


def _parameters(stage: TrainingStage) -> int:
    """A reward model has a vector of `hidden_size` where the others have a row for every token."""
    model = stage.model
    if not isinstance(stage, RewardStage):
        return model.parameters
    output = 0 if model.tie_embeddings else model.vocab_size * model.hidden_size
    return model.parameters - output + model.hidden_size


def _time(stage: TrainingStage, estimate: Estimate | None, curve: Curve) -> Iterator[Figure]:
    world = stage.layout.world_size
    step = estimate.step if estimate else None
    steps_ms = [value for _, value in curve.values("perf/step_time_ms")]
    typical_ms = steps_ms[WARM_UP_STEPS:] or steps_ms
    measured_ms = median(typical_ms) if typical_ms else None
    yield _step("step time", step, measured_ms)
    if step and measured_ms is not None and "recompute" not in step.parts:
        yield from _parts(step, curve, measured_ms)
    tgs = _median(curve, "perf/tgs")
    yield Figure("tokens/s", estimate.tokens_per_s if estimate else None, tgs * world if tgs else None, quantity.count)
    tflops = None
    if estimate and estimate.tokens_per_s is not None:
        tflops = estimate.tokens_per_s * estimate.model_flops_per_token / world / 1e12
    measured_tflops = _median(curve, "perf/tflops_per_gpu")
    yield Figure("TFLOP/s a device", tflops, measured_tflops, lambda value: quantity.number(value, 3))


def _iteration(estimate: Estimate | None, curve: Curve) -> Iterator[Figure]:
    """An iteration of PPO and its phases. A save is not planned by the iteration, and not counted in it."""
    planned = planned_ms(estimate)
    measured = {phase: time_ms for phase, time_ms in measured_ms(curve).items() if phase != "save"}
    yield _step("iteration time", estimate.step if estimate else None, sum(measured.values()) or None)
    for phase in dict.fromkeys([*planned, *measured]):
        yield Figure(f"in it: {phase}", planned.get(phase), measured.get(phase), quantity.milliseconds)


def _step(name: str, step: StepTime | None, measured_ms: float | None) -> Figure:
    planned = step.time_s * 1000 if step else None
    between = (step.low_s * 1000, step.high_s * 1000) if step else None
    return Figure(name, planned, measured_ms, quantity.milliseconds, between=between)


def _all_steps(name: str, steps: int | None, estimate: Estimate | None, curve: Curve, done: bool) -> Figure:
    """Not the stage's own time: after a restart that is the last attempt's alone."""
    step = estimate.step if estimate else None
    planned = [each_s * steps for each_s in (step.time_s, step.low_s, step.high_s)] if step and steps else None
    took_ms = [value for _, value in curve.values("perf/step_time_ms")]
    return Figure(
        name,
        planned[0] if planned else None,
        sum(took_ms) / 1000 if took_ms else None,
        quantity.duration,
        done,
        (planned[1], planned[2]) if planned else None,
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
    planned = _kinds(fullest) if (fullest := _fullest(estimate)) else {}
    for name, kind in _MEMORY.items():
        measured_gb = _last(curve, f"memory/{kind}_gb")
        if measured_gb is None and kind == "allocated" and facts.plan.hardware.device != "cpu":
            measured_gb = max((value for _, value in curve.values("memory/max_active_gb")), default=None)
        if kind == "allocated" or measured_gb is not None:
            yield Figure(name, planned.get(kind), None if measured_gb is None else measured_gb * 1e9, quantity.size)
    if facts.plan.hardware.device == "cpu":
        resident = [value for _, value in curve.values("memory/max_active_gb")]
        yield Figure("resident memory", None, max(resident) * 1e9 if resident else None, quantity.size)


def _fullest(estimate: Estimate | None) -> RankMemory | None:
    """Of PPO at the fullest moment of the placement that was chosen."""
    chosen = [each.fullest for each in (estimate.iterations if estimate else ()) if each.chosen]
    ranks = chosen or (estimate.memory if estimate else ())
    return max(ranks, key=lambda rank: rank.allocated_bytes, default=None)


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
