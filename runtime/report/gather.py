"""Reads a run's folder into one typed object: missing files are told as such, broken ones with a sentence."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec

from trainwright.runtime.report.alignment import read_alignment
from trainwright.runtime.report.attempts import Attempts, Event, read_attempts, run_state, stage_state
from trainwright.runtime.report.facts import Curve, Lineage, LogTail, RunFacts, StageFacts
from trainwright.runtime.report.files import Files
from trainwright.runtime.report.results import read_curve, read_samples, read_scores, read_sources
from trainwright.spec import artefact
from trainwright.spec.artefact import StageResult, store_folder
from trainwright.spec.plan import AnyStage, Plan, TrainingStage, decode

_TAIL_LINES = 30
UNFINISHED = ("failed", "interrupted", "running")


class NoRun(Exception):
    """The folder holds no run that can be told about; the text is one sentence for the user."""


def gather(folder: Path) -> RunFacts:
    """All that the run's folder says. Raises NoRun without a readable `plan.json`; everything else may be missing."""
    files = Files(folder)
    plan = _plan(folder)
    attempts = read_attempts(files.rows(folder / "events.jsonl"), folder)
    curves = {stage.name: read_curve(files, stage) for stage in plan.stages if isinstance(stage, TrainingStage)}
    stages = tuple(_stage_facts(files, stage, attempts, curves) for stage in plan.stages)
    exit_code = attempts.end.get("exit_code") if attempts.end else None
    return RunFacts(
        folder=str(folder),
        name=plan.name,
        state=run_state([stage.state for stage in stages], attempts),
        written=datetime.now(UTC).isoformat(timespec="seconds"),
        started=_time(attempts.newest[0]) if attempts.newest else None,
        ended=_time(attempts.end) if attempts.end else None,
        last_event=_time(attempts.newest[-1]) if attempts.newest else None,
        attempts=attempts.count,
        wall_s=attempts.wall_s,
        exit_code=exit_code if isinstance(exit_code, int) else None,
        plan=plan,
        lineage=files.read(folder / "lineage.json", _lineage) or Lineage(),
        spec=files.read(folder / "spec.toml", lambda data: data.decode()),
        stages=stages,
        curves=tuple(curves.values()),
        sources=read_sources(files, plan, {stage.name: stage.summary for stage in stages}),
        scores=read_scores(files, plan),
        samples=read_samples(files, plan),
        alignment=read_alignment(files, plan, {stage.name: stage for stage in stages}, curves),
        troubles=attempts.troubles(),
        log_tails=_log_tails(files, plan, stages, attempts),
        broken=tuple(files.broken),
    )


def _plan(folder: Path) -> Plan:
    path = folder / "plan.json"
    try:
        return decode(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise NoRun(f"{folder} is not a run: there is no plan.json in it") from None
    except msgspec.DecodeError as error:
        raise NoRun(f"{path} is not a plan of this version: {error}") from None


def _lineage(data: bytes) -> Lineage:
    return msgspec.json.decode(data, type=Lineage)


def _stage_facts(files: Files, stage: AnyStage, attempts: Attempts, curves: dict[str, Curve]) -> StageFacts:
    folder = store_folder(files.folder, stage)
    result = _read_result(files, folder / artefact.RESULT_FILE, stage)
    begun = result or _read_result(files, folder / artefact.IDENTITY_FILE, stage)
    state, note = stage_state(attempts, stage.name, done=result is not None, begun=begun is not None)
    if isinstance(stage, TrainingStage):
        curve = curves[stage.name]
        progress = _progress(folder, stage, curve) if state in UNFINISHED else ""
        note = "; ".join(filter(None, (note, progress, _blow_up(curve))))
    seconds = result.summary.get("seconds") if result else None
    return StageFacts(
        name=stage.name,
        kind=str(type(stage).__struct_config__.tag),
        needs=stage.needs,
        fingerprint=stage.fingerprint,
        state=state,
        note=note,
        started=begun.started if begun else None,
        finished=result.finished if result else None,
        duration_s=float(seconds) if isinstance(seconds, int | float) else None,
        summary=result.summary if result else {},
    )


def _read_result(files: Files, path: Path, stage: AnyStage) -> StageResult | None:
    found = files.read(path, lambda data: msgspec.json.decode(data, type=StageResult))
    return found if found is not None and found.fingerprint == stage.fingerprint else None


def _progress(folder: Path, stage: TrainingStage, curve: Curve) -> str:
    """How far an unfinished stage came, and where it would go on."""
    checkpoint = artefact.latest_checkpoint(folder)
    saved = "no checkpoint yet" if checkpoint is None else f"newest checkpoint at step {checkpoint:,}"
    planned = f" of {stage.steps:,}" if stage.steps else ""  # 0: the data say how many
    return f"step {curve.steps:,}{planned}, {saved}"


def _blow_up(curve: Curve) -> str:
    """From where on the loss is NaN or infinite; empty if it never was."""
    finite = {step for step, _ in curve.values("train/loss")}
    first = next((row["step"] for row in curve.rows if "train/loss" in row and row["step"] not in finite), None)
    return f"the loss is not finite from step {first:,} on" if first is not None else ""


def _log_tails(files: Files, plan: Plan, stages: tuple[StageFacts, ...], attempts: Attempts) -> tuple[LogTail, ...]:
    """The last lines of every log of the stages that did not come to their end, without tracebacks told elsewhere."""
    traces = [trouble.traceback for trouble in attempts.troubles() if trouble.traceback]
    return tuple(
        LogTail(path=files.name(path), lines=files.tail(path, _TAIL_LINES, without=traces))
        for stage in stages
        if stage.state in UNFINISHED
        for path in sorted((store_folder(files.folder, plan.stage(stage.name)) / "logs").glob("rank_*"))
    )


def _time(event: Event) -> str | None:
    return str(event["ts"]) if "ts" in event else None
