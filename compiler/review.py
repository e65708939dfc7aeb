"""What executing a plan would do, given what a run's folder holds: run, resume or reuse each stage, and why."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from trainwright.compiler.changes import changes
from trainwright.spec.artefact import (
    StageResult,
    latest_checkpoint,
    needs_of,
    read_identity,
    read_result,
    stage_link,
    store_folder,
)
from trainwright.spec.plan import AnyStage, PhaseStage, Plan, identity

Action = Literal["run", "resume", "reuse"]
SHOWN = 3  # changes named in a reason; the rest is counted


@dataclass(frozen=True)
class Verdict:
    """What would become of one stage. `step` is where a phase would go on."""

    stage: str
    action: Action
    reason: str
    step: int | None = None


def review(plan: Plan, run: Path) -> list[Verdict]:
    """One verdict a stage, in the plan's order. A folder that is not there is an empty one."""
    verdicts: dict[str, Verdict] = {}
    for stage in plan.stages:
        remade = [need for need in stage.needs if verdicts[need].action != "reuse"]
        verdicts[stage.name] = _verdict(plan, stage, run, remade)
    return list(verdicts.values())


def _verdict(plan: Plan, stage: AnyStage, run: Path, remade: list[str]) -> Verdict:
    folder = store_folder(run, stage)
    done = _read(folder, finished=True)
    if done is not None and done.fingerprint == stage.fingerprint:
        return Verdict(stage.name, "reuse", f"done at {done.finished}" if done.finished else "done")
    started = _read(folder, finished=False)
    if started is not None and started.fingerprint == stage.fingerprint:
        step = latest_checkpoint(folder)
        if isinstance(stage, PhaseStage) and step is not None:
            return Verdict(stage.name, "resume", f"stopped, checkpoint at step {step:,} of {stage.steps:,}", step)
        return Verdict(stage.name, "run", "was interrupted before its first checkpoint")
    earlier = _earlier(run, stage.name)
    return Verdict(stage.name, "run", _why(plan, stage, earlier, remade))


def _why(plan: Plan, stage: AnyStage, earlier: StageResult | None, remade: list[str]) -> str:
    if earlier is None:
        return "has no result yet"
    own = [str(change) for change in changes(earlier.identity, _plain(identity(stage)))]
    now = needs_of(plan, stage)
    if own:
        rest = f" and {len(own) - SHOWN:,} more" if len(own) > SHOWN else ""
        return ", ".join(own[:SHOWN]) + rest
    changed = [name for name in now if earlier.needs.get(name) != now[name]]
    if changed:
        return f"needs {', '.join(f'`{name}`' for name in changed)}, which changes"
    if remade:
        return f"needs {', '.join(f'`{name}`' for name in remade)}, which is made again"
    return "its result is gone"


def _plain(value: dict[str, object]) -> Any:
    """As it reads after a round through JSON, like the one it is compared with."""
    return msgspec.json.decode(msgspec.json.encode(value))


def _earlier(run: Path, name: str) -> StageResult | None:
    """What the stage of that name was last time."""
    folder = stage_link(run, name)
    return _read(folder, finished=True) or _read(folder, finished=False)


def _read(folder: Path, *, finished: bool) -> StageResult | None:
    """None too for a file that is no result: whatever it was, it cannot be reused."""
    try:
        return read_result(folder) if finished else read_identity(folder)
    except msgspec.DecodeError:
        return None
