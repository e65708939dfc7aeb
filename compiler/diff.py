"""What differs between two plans: values, stale stages with the reason, and figures."""

from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from trainwright.compiler.changes import Change, changes
from trainwright.spec.plan import AnyStage, Estimate, PhaseStage, Plan

_OF_A_STAGE = frozenset({"fingerprint", "needs", "kind", "name"})


@dataclass(frozen=True)
class StageChange:
    """One stage of either plan: `same`, `stale` (its result changes), `moved` (only how it is executed), ..."""

    stage: str
    state: str  # same, stale, moved, added, removed
    reason: str
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Figure:
    """One figure of both plans; None where it is unknown."""

    name: str
    unit: str
    old: float | None
    new: float | None


@dataclass(frozen=True)
class Difference:
    """Between an older and a newer plan."""

    stages: tuple[StageChange, ...]
    general: tuple[Change, ...]  # values that belong to no stage
    figures: tuple[Figure, ...]

    @property
    def empty(self) -> bool:
        return not self.general and all(stage.state == "same" for stage in self.stages)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def diff_plans(old: Plan, new: Plan) -> Difference:
    """Everything that differs; a stage whose fingerprint differs is stale, and so is all that needs it."""
    before = {stage.name: stage for stage in old.stages}
    after = {stage.name: stage for stage in new.stages}
    stages = [_stage(stage, before.get(stage.name), after) for stage in new.stages]
    stages += [StageChange(name, "removed", "not in the newer plan", ()) for name in before if name not in after]
    return Difference(tuple(stages), tuple(changes(_general(old), _general(new))), tuple(_figures(old, new)))


def _stage(stage: AnyStage, old: AnyStage | None, after: dict[str, AnyStage]) -> StageChange:
    if old is None:
        return StageChange(stage.name, "added", "not in the older plan", ())
    own = tuple(changes(_values(old), _values(stage)))
    if old.fingerprint == stage.fingerprint:
        moved = "only how it is executed differs" if own else ""
        return StageChange(stage.name, "moved" if own else "same", moved, own)
    if own:
        return StageChange(stage.name, "stale", "its own values differ", own)
    return StageChange(stage.name, "stale", f"needs {', '.join(f'`{need}`' for need in stage.needs)}", own)


def _values(stage: AnyStage) -> dict[str, Any]:
    plain = msgspec.to_builtins(stage)
    return {key: value for key, value in plain.items() if key not in _OF_A_STAGE}


def _general(plan: Plan) -> dict[str, Any]:
    return {"name": plan.name, "compiler": plan.compiler, "hardware": msgspec.to_builtins(plan.hardware)}


def _figures(old: Plan, new: Plan) -> list[Figure]:
    return [
        Figure("parameters", "", _parameters(old), _parameters(new)),
        Figure("tokens", "tokens", _tokens(old), _tokens(new)),
        Figure("fullest rank", "bytes", _fullest(old), _fullest(new)),
        Figure("training time", "s", _total(old, "duration_s"), _total(new, "duration_s")),
        Figure("gpu-hours", "gpu-hours", _total(old, "gpu_hours"), _total(new, "gpu_hours")),
        Figure("cost", "", _total(old, "cost"), _total(new, "cost")),
    ]


def _phases(plan: Plan) -> list[PhaseStage]:
    return [stage for stage in plan.stages if isinstance(stage, PhaseStage)]


def _parameters(plan: Plan) -> float:
    return _phases(plan)[0].model.parameters


def _tokens(plan: Plan) -> float:
    return sum(phase.tokens for phase in _phases(plan))


def _fullest(plan: Plan) -> float:
    return max(rank.total_bytes for estimate in plan.estimates for rank in estimate.memory)


def _total(plan: Plan, key: str) -> float | None:
    """The sum over all phases; None if one of them is unknown."""
    values = [_value(estimate, key) for estimate in plan.estimates]
    return None if None in values else sum(value for value in values if value is not None)


def _value(estimate: Estimate, key: str) -> float | None:
    value: float | None = getattr(estimate, key)
    return value
