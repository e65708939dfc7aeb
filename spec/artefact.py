"""What executing a stage leaves in a run's folder, and where: written by the runtime, read by the compiler.

    runs/<name>/store/<stage>-<first 12 of the fingerprint>/
        identity.json       at the stage's start: what is being made, and out of what
        checkpoints/        of a phase: Megatron's own layout and names
        ...                 whatever else the stage makes
        result.json         written last: the stage is done
    runs/<name>/stages/<stage>  -> a relative link to that folder of the store which the newest plan means

Both JSON files hold a `StageResult`; the first one lacks `finished`, `summary` and `outputs`.
"""

from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from trainwright.spec.plan import Plan, Stage

IDENTITY_FILE = "identity.json"
RESULT_FILE = "result.json"
CHECKPOINTS = "checkpoints"
METRICS_FILE = "metrics.jsonl"  # of a phase: a row a step
WARM_UP_STEPS = 3  # caches fill, and the step that is profiled takes longer: not counted as typical steps
ROLLOUTS_FILE = "rollouts.jsonl"  # of a stage of PPO: every answer of every iteration
PROBES_FILE = "probes.jsonl"  # of a stage of PPO: the same queries answered by the start, the early and the late actor
PATCHES = "patches"  # of an online stage: the source whose rows are its confirmed pairs
LATEST_CHECKPOINT_FILE = "latest_checkpointed_iteration.txt"  # Megatron's name


class StageResult(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One execution of one stage. `identity` and `needs` are what its fingerprint was made of."""

    stage: str
    fingerprint: str
    identity: dict[str, Any]  # spec/plan.py identity()
    needs: dict[str, str]  # stage -> fingerprint
    started: str  # ISO 8601, UTC
    finished: str | None = None
    summary: dict[str, Any] = {}  # figures worth showing: tokens, documents, loss, seconds
    outputs: dict[str, str] = {}  # what -> path relative to the stage's folder


def store_folder(run: Path, stage: Stage) -> Path:
    """Where the result of exactly this stage lies, or will lie."""
    return run / "store" / f"{stage.name}-{stage.fingerprint[:12]}"


def stage_link(run: Path, name: str) -> Path:
    """The link that points to the current result of the stage of that name."""
    return run / "stages" / name


def needs_of(plan: Plan, stage: Stage) -> dict[str, str]:
    """The fingerprints of what the stage needs, by name."""
    return {name: plan.stage(name).fingerprint for name in stage.needs}


def encode_result(result: StageResult) -> bytes:
    """The bytes of `identity.json` and `result.json`: indented, sorted, one newline at the end."""
    return msgspec.json.format(msgspec.json.encode(result, order="deterministic"), indent=2) + b"\n"


def read_result(folder: Path) -> StageResult | None:
    """The result in a folder of the store; None if the stage was not finished there.

    Raises msgspec.DecodeError if the file is not a result.
    """
    return _read(folder / RESULT_FILE)


def read_identity(folder: Path) -> StageResult | None:
    """What was started in a folder of the store; None if nothing was. Raises as `read_result` does."""
    return _read(folder / IDENTITY_FILE)


def latest_checkpoint(folder: Path) -> int | None:
    """The step of the newest complete checkpoint of a phase's folder; None if there is none."""
    try:
        text = (folder / CHECKPOINTS / LATEST_CHECKPOINT_FILE).read_text(encoding="utf-8").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return int(text) if text.isdecimal() else None


class _Row(Struct):
    step: int
    step_time_ms: float | None = msgspec.field(name="perf/step_time_ms", default=None)
    matmul_ms: float | None = msgspec.field(name="profile/matmul_ms", default=None)
    attention_ms: float | None = msgspec.field(name="profile/attention_ms", default=None)
    exchange_ms: float | None = msgspec.field(name="profile/exchange_ms", default=None)
    other_ms: float | None = msgspec.field(name="profile/other_ms", default=None)


def step_times_s(folder: Path) -> list[float]:
    """Seconds of every step that a phase's folder tells of, in order of steps; a step run twice counts once."""
    rows = {row.step: row.step_time_ms for row in _rows(folder)}
    return [time_ms / 1e3 for _, time_ms in sorted(rows.items()) if time_ms is not None]


def step_parts_s(folder: Path) -> dict[str, float]:
    """Seconds by kind of work of the newest step that was profiled; empty if none was."""
    for row in reversed(_rows(folder)):
        if row.matmul_ms is not None:
            parts = {kind: getattr(row, f"{kind}_ms") for kind in ("matmul", "attention", "exchange", "other")}
            return {kind: time_ms / 1e3 for kind, time_ms in parts.items() if time_ms is not None}
    return {}


def _rows(folder: Path) -> list[_Row]:
    try:
        data = (folder / METRICS_FILE).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return []
    whole = data[: data.rfind(b"\n") + 1]  # a kill may have cut the last line
    return msgspec.json.Decoder(_Row).decode_lines(whole)


def _read(path: Path) -> StageResult | None:
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return msgspec.json.decode(data, type=StageResult)
