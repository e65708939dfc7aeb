"""A run's folder: results by content, links to the current ones, and the lock that keeps a second run out."""

import contextlib
import fcntl
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainwright.runtime.events import EventLog, now
from trainwright.spec import artefact
from trainwright.spec.artefact import StageResult
from trainwright.spec.plan import AnyStage, Plan, TrainingStage, identity

STOP_FILE = "stop"  # its presence asks the workers to save and to end
SUMMARY_FILE = "summary.json"  # what a stage's workers tell the executor


class RunLocked(Exception):
    """Another process is executing in this run's folder; the text says which."""


def write_atomically(path: Path, data: bytes) -> None:
    """The file holds `data` after the call, and at no moment half of it, whatever dies."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


@dataclass(frozen=True)
class Store:
    """The results of one run. `folder` is `runs/<name>`."""

    folder: Path
    plan: Plan

    @property
    def events(self) -> EventLog:
        return EventLog(self.folder / "events.jsonl")

    def path(self, stage: AnyStage) -> Path:
        return artefact.store_folder(self.folder, stage)

    def inputs(self, stage: AnyStage) -> dict[str, Path]:
        """The result folders of all that the stage needs, by stage name."""
        return {name: self.path(self.plan.stage(name)) for name in stage.needs}

    def result(self, stage: AnyStage) -> StageResult | None:
        """The finished result of exactly this stage; None if there is none."""
        found = artefact.read_result(self.path(stage))
        return found if found is not None and found.fingerprint == stage.fingerprint else None

    def begin(self, stage: AnyStage) -> StageResult:
        """The stage's folder is there, empty unless it trains a model and may continue from a checkpoint."""
        folder = self.path(stage)
        if folder.exists() and not isinstance(stage, TrainingStage):
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / SUMMARY_FILE).unlink(missing_ok=True)
        started = StageResult(
            stage=stage.name,
            fingerprint=stage.fingerprint,
            identity=identity(stage),
            needs=artefact.needs_of(self.plan, stage),
            started=now(),
        )
        write_atomically(folder / artefact.IDENTITY_FILE, artefact.encode_result(started))
        self.link(stage)
        return started

    def finish(self, stage: AnyStage, started: StageResult, summary: dict[str, Any]) -> None:
        """The stage counts as done from here on."""
        outputs = {path.name: path.name for path in sorted(self.path(stage).iterdir()) if path.name[0] != "."}
        done = StageResult(
            stage=started.stage,
            fingerprint=started.fingerprint,
            identity=started.identity,
            needs=started.needs,
            started=started.started,
            finished=now(),
            summary=summary,
            outputs=outputs,
        )
        write_atomically(self.path(stage) / artefact.RESULT_FILE, artefact.encode_result(done))

    def link(self, stage: AnyStage) -> None:
        """`stages/<stage>` points to this result."""
        link = artefact.stage_link(self.folder, stage.name)
        link.parent.mkdir(parents=True, exist_ok=True)
        target = os.path.relpath(self.path(stage), link.parent)
        if link.is_symlink() and os.readlink(link) == target:
            return
        temporary = link.with_name(f".{link.name}.new")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        temporary.replace(link)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the run's lock for the block. Raises RunLocked if somebody else does; a dead holder holds nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise RunLocked(f"{folder} is being run by {file.read().strip() or 'another process'}") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {now()}\n")
        file.flush()
        yield
