"""One process of a small world that aligns a toy model: `python -m tests.runtime.align.world RANK WORLD JOB.json`.

Run by the fixture `align_world` (conftest.py), not collected. A job is {"kind": "sft" | "dpo", "layouts": [...], ...};
rank 0 keeps each layout's summary beside the job. `start` is made here if it is not there yet.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from trainwright.runtime import host

host.install()

import torch  # noqa: E402
from tests.runtime.align.stages import BEGIN, dpo_stage, sft_stage  # noqa: E402
from torch import distributed  # noqa: E402

from trainwright.runtime.align import dpo, sft  # noqa: E402
from trainwright.runtime.train import checkpoint, parallel  # noqa: E402
from trainwright.runtime.train.model import model_of  # noqa: E402
from trainwright.runtime.train.optimizer import build_optimizer, wrap  # noqa: E402
from trainwright.spec.artefact import CHECKPOINTS  # noqa: E402
from trainwright.spec.plan import DpoStage, SftStage  # noqa: E402

STAGES: dict[str, Any] = {"sft": sft_stage, "dpo": dpo_stage}


def save_start(folder: Path, stage: SftStage | DpoStage) -> None:
    """`folder` is that of a stage whose checkpoint has other weights than those of the stage's own seed."""
    chunks = model_of(stage, seed=stage.seed + 1)
    optimizer = build_optimizer(wrap(chunks, stage.layout), stage.optimizer, stage.layout, stage.precision)
    optimizer.step()  # makes the moments
    state = checkpoint.TrainState(
        stage="before", step=1, optimizer_steps=1, consumed_tokens=0, consumed_tokens_by_source={}
    )
    checkpoint.save(folder / CHECKPOINTS, chunks, optimizer, state, 1)


def meet(file: str, rank: int, world_size: int) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=world_size)


def train(stage: SftStage | DpoStage, **options: Any) -> dict[str, Any]:
    if isinstance(stage, SftStage):
        return sft.train(stage, **options).to_dict()
    return dpo.train(stage, begin=BEGIN, **options).to_dict()


def main() -> None:
    torch.set_num_threads(1)
    rank, world_size, path = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    job = json.loads(path.read_text())
    start = Path(job["start"])
    results = []
    for number, (changes, out) in enumerate(zip(job["layouts"], job["out"], strict=True)):
        stage = STAGES[job["kind"]]({**job, "layout": changes})
        if not (start / CHECKPOINTS).exists():
            meet(f"{path}.start", rank, world_size)
            parallel.initialize(stage.layout, seed=1)
            save_start(start, stage)
            parallel.finalize()
        meet(f"{path}.{number}", rank, world_size)
        calls = 0

        def should_stop() -> bool:
            nonlocal calls
            calls += 1
            if calls == job.get("kill_after"):
                os.kill(os.getpid(), signal.SIGKILL)
            return False

        folder = Path(out)
        folder.mkdir(exist_ok=True)
        results.append(
            train(
                stage,
                inputs={"conversations": Path(job["data"]), "tokenize": Path(job["data"]), "before": start},
                estimate=None,
                out=folder,
                run_folder=folder,
                should_stop=should_stop,
            )
        )
    if rank == 0:
        path.with_suffix(".result").write_text(json.dumps(results))


if __name__ == "__main__":
    main()
