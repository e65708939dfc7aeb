"""The entry of a worker process: `python -m trainwright.runtime.worker PLAN STAGE RUN_FOLDER`, under torchrun.

It reads the plan and nothing else, does its share of one stage, and tells the executor through `summary.json`.
"""

import ctypes
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainwright.runtime.data.vocabulary import Vocabulary
from trainwright.runtime.events import EventLog
from trainwright.runtime.store import STOP_FILE, SUMMARY_FILE, Store, write_atomically
from trainwright.runtime.train.summary import PhaseSummary
from trainwright.spec.plan import (
    DpoStage,
    EvaluateStage,
    ExportStage,
    PhaseStage,
    PpoStage,
    RewardStage,
    SftStage,
    decode,
)

AnyTraining = PhaseStage | SftStage | RewardStage | PpoStage | DpoStage


def main() -> int:
    """The process's exit code: 0 done or saved and interrupted, 1 failed."""
    plan_file, stage_name, folder = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    rank = int(os.environ["RANK"])
    _die_with_parent()
    stop = _stop_request(folder / STOP_FILE)
    store = Store(folder, decode(plan_file.read_bytes()))
    stage = store.plan.stage(stage_name)
    out = store.path(stage)
    events = EventLog(folder / "events.jsonl", rank)
    if rank > 0:
        _redirect_output(out / "logs" / f"rank_{rank:05d}.stdout")
    try:
        if isinstance(stage, AnyTraining):
            summary = _train(store, stage, out, stop).to_dict()
        elif isinstance(stage, EvaluateStage):
            from trainwright.runtime.evaluate import evaluate

            summary = evaluate.run(stage, plan=store.plan, inputs=store.inputs(stage), out=out, progress=_say)
        elif isinstance(stage, ExportStage):
            from trainwright.runtime.export import export

            summary = export.run(stage, plan=store.plan, inputs=store.inputs(stage), out=out, progress=_say)
        else:
            raise TypeError(f"stage {stage_name} of kind {type(stage).__name__} needs no worker")
    except Exception as error:
        text = traceback.format_exc()
        events.write(
            "worker_failed", level="error", stage=stage_name, error=f"{type(error).__name__}: {error}", traceback=text
        )
        log = out / "logs" / f"rank_{rank:05d}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "a", encoding="utf-8") as file:
            file.write(text)
        # The other ranks may be waiting in a collective: leave at once, so that the launcher ends them.
        os._exit(1)
    if rank == 0:
        write_atomically(out / SUMMARY_FILE, json.dumps(summary, ensure_ascii=False).encode())
    return 0


def _train(store: Store, stage: AnyTraining, out: Path, stop: Callable[[], bool]) -> PhaseSummary:
    from trainwright.runtime import host

    host.install()  # before anything of Megatron-core
    inputs = store.inputs(stage)
    attempt: dict[str, Any] = {
        "estimate": next((estimate for estimate in store.plan.estimates if estimate.stage == stage.name), None),
        "out": out,
        "run_folder": store.folder,
        "should_stop": stop,
    }
    if isinstance(stage, PhaseStage):
        from trainwright.runtime.train import phase

        start = inputs[stage.start_from] if stage.start_from is not None else None
        return phase.train(stage, data=inputs["tokenize"], start=start, **attempt)
    if isinstance(stage, SftStage):
        from trainwright.runtime.align import sft

        return sft.train(stage, inputs=inputs, **attempt)
    vocabulary = Vocabulary(inputs["tokenizer"])
    if isinstance(stage, DpoStage):
        from trainwright.runtime.align import dpo

        return dpo.train(stage, inputs=inputs, begin=vocabulary.begin, **attempt)
    root = (store.folder / store.plan.root).resolve()
    if isinstance(stage, PpoStage):
        from trainwright.runtime.align.ppo import stage as ppo

        return ppo.train(stage, inputs=inputs, vocabulary=vocabulary, root=root, **attempt)
    from trainwright.runtime.align.reward import stage as reward

    return reward.train(stage, inputs=inputs, vocabulary=vocabulary, root=root, **attempt)


def _stop_request(stop_file: Path) -> Callable[[], bool]:
    """A function that says whether this process was asked to save and end, by a signal or by the run's stop file."""
    signalled = False

    def note(*_: object) -> None:
        nonlocal signalled
        signalled = True

    signal.signal(signal.SIGTERM, note)
    signal.signal(signal.SIGINT, note)
    return lambda: signalled or stop_file.exists()


def _die_with_parent() -> None:
    """The kernel kills this process when the launcher dies, so that no orphan goes on writing into the run."""
    parent = os.getppid()
    libc = ctypes.CDLL(None, use_errno=True)
    pr_set_pdeathsig = 1
    libc.prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the call
        os._exit(1)


def _redirect_output(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
