"""Walks a plan's stage graph: what is done is reused, what was interrupted goes on, what changed runs again."""

import importlib.metadata
import json
import os
import platform
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainwright import __version__
from trainwright.runtime.launch.local import WorkersFailed, run_workers
from trainwright.runtime.store import STOP_FILE, SUMMARY_FILE, RunLocked, Store, locked, write_atomically
from trainwright.spec import artefact
from trainwright.spec.plan import (
    AnyStage,
    ConversationsStage,
    IngestStage,
    OnlineStage,
    Plan,
    RewardStage,
    TokenizerStage,
    TokenizeStage,
    TrainingStage,
    encode,
    fingerprint,
)

EXIT_OK, EXIT_FAILED, EXIT_INFEASIBLE, EXIT_HELD, EXIT_GATE, EXIT_REQUEUE = 0, 1, 3, 4, 5, 75
DataStage = IngestStage | TokenizerStage | TokenizeStage | ConversationsStage | OnlineStage  # done in this process
_PASSED_THROUGH = (16, 17)  # Megatron's rerun machine: ask for a restart, or say that a fault was validated


class StageFailed(Exception):
    """A stage could not be done. The text is one sentence for the user; `exit_code` is the process's."""

    def __init__(self, message: str, exit_code: int = EXIT_FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Documents:
    """What is kept beside the plan so that a run explains itself."""

    spec: bytes | None = None
    resolved: bytes | None = None


def execute(plan: Plan, run_folder: Path, *, documents: Documents, say: Callable[[str], None]) -> int:
    """Every stage of the plan has a result, or the reason why not was told; returns the exit code.

    `plan.root` must be relative to `run_folder`. Raises nothing for what goes wrong inside a stage.
    """
    try:
        with locked(run_folder):
            return _Execution(plan, run_folder, say).run(documents)
    except RunLocked as error:
        say(f"error: {error}")
        return EXIT_HELD


class _Execution:
    def __init__(self, plan: Plan, folder: Path, say: Callable[[str], None]) -> None:
        self.plan, self.folder, self.say = plan, folder, say
        self.store = Store(folder, plan)
        self.plan_file = folder / "plan.json"
        self.signals = 0

    def run(self, documents: Documents) -> int:
        (self.folder / STOP_FILE).unlink(missing_ok=True)
        self._write_documents(documents)
        events = self.store.events
        events.write("run_started", plan=self.plan.name, stages=[stage.name for stage in self.plan.stages])
        started = time.monotonic()
        code = EXIT_OK
        with self._stop_on_signals():
            for stage in self.plan.stages:
                try:
                    finished = self._stage(stage)
                except StageFailed as error:
                    events.write("stage_failed", level="error", stage=stage.name, error=str(error))
                    self.say(f"error: stage `{stage.name}`: {error}")
                    code = error.exit_code
                    break
                except KeyboardInterrupt:
                    events.write("stage_interrupted", level="warning", stage=stage.name, saved=False)
                    self.say(f"stage `{stage.name}`: interrupted; it starts again next time")
                    code = 128 + (self.last_signal or signal.SIGINT)
                    break
                finally:
                    self._collect_metrics()
                if not finished:
                    events.write("stage_interrupted", level="warning", stage=stage.name, saved=True)
                    self.say(f"stage `{stage.name}`: checkpoint saved; the same command goes on from there")
                    code = EXIT_REQUEUE
                    break
        (self.folder / STOP_FILE).unlink(missing_ok=True)
        events.write("run_ended", exit_code=code, dur_ms=round((time.monotonic() - started) * 1000, 1))
        return code

    def _stage(self, stage: AnyStage) -> bool:
        """False if the stage was interrupted and saved. Raises StageFailed or KeyboardInterrupt."""
        done = self.store.result(stage)
        if done is not None:
            self.store.link(stage)
            _pass_gate(stage, done.summary)
            self.store.events.write("stage_reused", stage=stage.name)
            self.say(f"{stage.name}: done before, reused")
            return True
        started = self.store.begin(stage)
        self.say(f"{stage.name}: running")
        clock = time.monotonic()
        summary = self._data_stage(stage) if isinstance(stage, DataStage) else self._worker_stage(stage)
        if summary.get("interrupted"):
            return False
        seconds = round(time.monotonic() - clock, 3)
        self.store.finish(stage, started, {**summary, "seconds": seconds})
        self.store.events.write("stage_done", stage=stage.name, dur_ms=round(seconds * 1000, 1))
        self.say(f"{stage.name}: done in {seconds:.1f} s")
        _pass_gate(stage, summary)
        return True

    def _data_stage(self, stage: DataStage) -> dict[str, Any]:
        from trainwright.runtime.align.data import conversations
        from trainwright.runtime.align.online import stage as online
        from trainwright.runtime.data import ingest, tokenize, tokenizer
        from trainwright.runtime.data.errors import DataError

        runs: dict[type, Callable[..., dict[str, Any]]] = {
            IngestStage: ingest.run,
            TokenizerStage: tokenizer.run,
            TokenizeStage: tokenize.run,
            ConversationsStage: conversations.run,
            OnlineStage: online.run,
        }
        root = (self.folder / self.plan.root).resolve()
        try:
            return runs[type(stage)](
                stage, root=root, inputs=self.store.inputs(stage), out=self.store.path(stage), progress=self.say
            )
        except DataError as error:
            raise StageFailed(str(error)) from None

    def _worker_stage(self, stage: AnyStage) -> dict[str, Any]:
        processes = stage.world_size if isinstance(stage, TrainingStage) else 1
        try:
            run_workers(self.plan, self.plan_file, stage.name, self.folder, processes)
        except WorkersFailed as error:
            cause = self.store.events.last("worker_failed", stage.name, rank=error.rank)
            log = self.store.path(stage) / "logs" / f"rank_{error.rank:05d}.log"
            code = error.exit_code if error.exit_code in _PASSED_THROUGH else EXIT_FAILED
            raise StageFailed(f"{cause['error'] if cause else error} (rank {error.rank}; see {log})", code) from None
        if self.signals > 1:
            raise KeyboardInterrupt
        summary: dict[str, Any] = json.loads((self.store.path(stage) / SUMMARY_FILE).read_bytes())
        return summary

    @contextmanager
    def _stop_on_signals(self) -> Iterator[None]:
        """The first SIGTERM or SIGINT asks workers to save and end; a data stage or a second signal ends at once."""
        self.last_signal: int | None = None

        def handle(number: int, _: object) -> None:
            self.signals += 1
            self.last_signal = number
            (self.folder / STOP_FILE).touch()
            if self.signals > 1 or not self._has_workers():
                raise KeyboardInterrupt

        before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _has_workers(self) -> bool:
        import psutil

        return any("trainwright.runtime.worker" in child.cmdline() for child in psutil.Process().children())

    def _write_documents(self, documents: Documents) -> None:
        write_atomically(self.plan_file, encode(self.plan))
        for name, data in (("spec.toml", documents.spec), ("resolved.toml", documents.resolved)):
            if data is not None:
                write_atomically(self.folder / name, data)
        write_atomically(self.folder / "lineage.json", _lineage(self.plan))

    def _collect_metrics(self) -> None:
        """The run's `metrics.jsonl` holds the rows of all its phases, in order."""
        rows = [
            path.read_bytes()
            for stage in self.plan.stages
            if isinstance(stage, TrainingStage) and (path := self.store.path(stage) / "metrics.jsonl").exists()
        ]
        if rows:
            write_atomically(self.folder / "metrics.jsonl", b"".join(rows))


def _pass_gate(stage: AnyStage, summary: dict[str, Any]) -> None:
    """Raises StageFailed with EXIT_GATE if the stage's result is not as good as the plan demands of it."""
    if isinstance(stage, RewardStage) and stage.min_accuracy is not None and summary["accuracy"] < stage.min_accuracy:
        found = f"accuracy on held-out pairs is {summary['accuracy']:.3f}"
        raise StageFailed(f"{found}, and the gate wants {stage.min_accuracy:.3f}", EXIT_GATE)


def verify(plan: Plan) -> None:
    """Every fingerprint is what the stage's own content gives. Raises StageFailed if the plan was edited by hand."""
    for stage in plan.stages:
        if stage.fingerprint != fingerprint(stage, artefact.needs_of(plan, stage)):
            raise StageFailed(
                f"the plan's stage `{stage.name}` does not match its fingerprint: plan it again", EXIT_HELD
            )


def verify_devices(plan: Plan) -> None:
    """The devices that the plan places ranks on are here. Raises StageFailed with EXIT_INFEASIBLE if they are not."""
    import torch

    hardware = plan.hardware
    if hardware.nodes > 1:
        message = f"the plan is for {hardware.nodes:,} nodes, and starting ranks on other nodes is not built yet"
        raise StageFailed(message, EXIT_INFEASIBLE)
    here = torch.cuda.device_count()
    if hardware.device == "cuda" and here < hardware.gpus_per_node:
        wanted = f"{hardware.gpus_per_node:,} x `{hardware.name}`"
        raise StageFailed(f"the plan is for {wanted}, but this machine shows {here:,} GPUs", EXIT_INFEASIBLE)


def verify_kernels(plan: Plan) -> None:
    """Every phase's attention can run here. Raises StageFailed if a package is missing."""
    import torch

    from trainwright.kernels.attention import missing

    for stage in plan.stages:
        if isinstance(stage, TrainingStage):
            dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[stage.precision]
            obstacle = missing(stage.attention, plan.hardware.device, dtype, stage.model.head_size)
            if obstacle is not None:
                raise StageFailed(f"phase `{stage.name}`: {obstacle}")


def _lineage(plan: Plan) -> bytes:
    packages = ("torch", "megatron-core", "numpy", "sentencepiece", "safetensors")
    lineage = {
        "trainwright": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "cores": os.cpu_count(),
        "command": sys.argv,
        "packages": {name: importlib.metadata.version(name) for name in packages},
        "fingerprints": {stage.name: stage.fingerprint for stage in plan.stages},
    }
    return (json.dumps(lineage, indent=2, ensure_ascii=False) + "\n").encode()
