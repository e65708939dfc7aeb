"""What differs between two plans: values, stale stages with the reason, and figures."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from trainwright.compiler.changes import Change, changes
from trainwright.spec.artefact import read_result, step_times_s, store_folder
from trainwright.spec.plan import AnyStage, Estimate, PhaseStage, Plan, TrainingStage

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
    """One figure of both plans; None where it is unknown. `stage` is empty for the plan as a whole."""

    stage: str
    name: str
    unit: str
    old: float | None
    new: float | None


@dataclass(frozen=True)
class Lost:
    """Work that a run has done for a stage and that the newer plan has no use for. The results stay in the store."""

    stage: str
    gpu_hours: float
    cost: float | None
    steps: int | None  # of a phase


@dataclass(frozen=True)
class Difference:
    """Between an older and a newer plan."""

    stages: tuple[StageChange, ...]
    general: tuple[Change, ...]  # values that belong to no stage
    figures: tuple[Figure, ...]
    lost: tuple[Lost, ...]

    @property
    def empty(self) -> bool:
        return not self.general and all(stage.state == "same" for stage in self.stages)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def diff_plans(old: Plan, new: Plan, run: Path | None = None) -> Difference:
    """Everything that differs; a stage whose fingerprint differs is stale, and so is all that needs it.

    `run` is the folder of the older plan's run: what was done there for stages that are stale now is counted as lost,
    and what the newer plan wants and finds there is not counted as work.
    """
    before = {stage.name: stage for stage in old.stages}
    after = {stage.name: stage for stage in new.stages}
    stages: list[StageChange] = []
    for stage in new.stages:
        stages.append(_stage(stage, before.get(stage.name), {each.stage for each in stages if each.state == "stale"}))
    stages += [StageChange(name, "removed", "not in the newer plan", ()) for name in before if name not in after]
    gone = [before[each.stage] for each in stages if each.state in ("stale", "removed")]
    again = [after[each.stage] for each in stages if each.state in ("stale", "added")]
    again = [stage for stage in again if run is None or read_result(store_folder(run, stage)) is None]
    return Difference(
        stages=tuple(stages),
        general=tuple(changes(_general(old), _general(new))),
        figures=tuple(_figures(old, new, {stage.name for stage in again})),
        lost=tuple(lost for stage in gone if run and (lost := _lost(old, stage, run))),
    )


def _stage(stage: AnyStage, old: AnyStage | None, stale: set[str]) -> StageChange:
    if old is None:
        return StageChange(stage.name, "added", "not in the older plan", ())
    own = tuple(changes(_values(old), _values(stage)))
    if old.fingerprint == stage.fingerprint:
        moved = "only how it is executed differs" if own else ""
        return StageChange(stage.name, "moved" if own else "same", moved, own)
    if own:
        return StageChange(stage.name, "stale", "its own values differ", own)
    changed = [need for need in stage.needs if need in stale or need not in old.needs]
    return StageChange(stage.name, "stale", f"needs {', '.join(f'`{need}`' for need in changed)}", own)


def _values(stage: AnyStage) -> dict[str, Any]:
    plain = msgspec.to_builtins(stage)
    return {key: value for key, value in plain.items() if key not in _OF_A_STAGE}


def _general(plan: Plan) -> dict[str, Any]:
    return {"name": plan.name, "compiler": plan.compiler, "hardware": msgspec.to_builtins(plan.hardware)}


def _figures(old: Plan, new: Plan, again: set[str]) -> list[Figure]:
    """Of each phase what differs, then of the whole plan; `again`: the stages that the newer plan runs anew."""
    figures = []
    before = {estimate.stage: estimate for estimate in old.estimates}
    after = {estimate.stage: estimate for estimate in new.estimates}
    for name in dict.fromkeys((*before, *after)):
        for figure, unit, value in _OF_A_PHASE:
            one, other = before.get(name), after.get(name)
            both = Figure(name, figure, unit, value(one) if one else None, value(other) if other else None)
            if both.old != both.new:
                figures.append(both)
    figures.append(Figure("", "parameters", "", _parameters(old), _parameters(new)))
    figures.append(Figure("", "tokens", "tokens", _tokens(old), _tokens(new)))
    for figure, unit, value in _OF_A_PHASE:
        if figure == "fullest rank":
            figures.append(Figure("", figure, unit, max(map(value, before.values())), max(map(value, after.values()))))
        elif figure != "step":
            figures.append(Figure("", figure, unit, _sum(before, value), _sum(after, value)))
    repeated = {name: estimate for name, estimate in after.items() if name in again}
    figures.append(Figure("", "GPU-hours to train again", "GPU-hours", None, _sum(repeated, _gpu_hours)))
    figures.append(Figure("", "cost to train again", "cost", None, _sum(repeated, _cost)))
    return figures


def _fullest(estimate: Estimate) -> float:
    return max(rank.total_bytes for rank in estimate.memory)


def _step(estimate: Estimate) -> float | None:
    return estimate.step_time_s


def _duration(estimate: Estimate) -> float | None:
    return estimate.duration_s


def _gpu_hours(estimate: Estimate) -> float | None:
    return estimate.gpu_hours


def _cost(estimate: Estimate) -> float | None:
    return estimate.cost


_OF_A_PHASE: tuple[tuple[str, str, Callable[[Estimate], Any]], ...] = (
    ("fullest rank", "bytes", _fullest),
    ("step", "s", _step),
    ("time", "s", _duration),
    ("GPU-hours", "GPU-hours", _gpu_hours),
    ("cost", "cost", _cost),
)


def _phases(plan: Plan) -> list[PhaseStage]:
    return [stage for stage in plan.stages if isinstance(stage, PhaseStage)]


def _parameters(plan: Plan) -> float:
    return _phases(plan)[0].model.parameters


def _tokens(plan: Plan) -> float:
    return sum(phase.tokens for phase in _phases(plan))


def _sum(estimates: dict[str, Estimate], value: Callable[[Estimate], float | None]) -> float | None:
    """Over all these phases; None if one of them is unknown."""
    values = [value(estimate) for estimate in estimates.values() if not estimate.is_open]
    return None if None in values else sum(value for value in values if value is not None)


def _lost(plan: Plan, stage: AnyStage, run: Path) -> Lost | None:
    """What the run's folder holds of exactly this stage; None if nothing of it was done."""
    folder = store_folder(run, stage)
    if isinstance(stage, TrainingStage):
        times_s = step_times_s(folder)
        hours = sum(times_s) * stage.layout.world_size / 3600
        steps = len(times_s)
    else:
        result = read_result(folder)
        hours = float(result.summary.get("seconds", 0.0)) / 3600 if result else 0.0
        steps = None
    price = plan.hardware.price_per_gpu_hour
    return Lost(stage.name, hours, None if price is None else hours * price, steps) if hours else None
