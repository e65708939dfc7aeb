"""One process of a small world that trains a reward model: `python -m ...reward.world RANK WORLD_SIZE JOB.json`.

Run by the fixture `world` (conftest.py), not collected. Rank 0 writes its results, one a layout, beside the job:
[loss, gradient norm] and all figures of every step, and the scores that every rank must have after the last.
"""

import json
import sys
from pathlib import Path
from typing import Any

from trainwright.runtime import host

host.install()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from tests.runtime.align.reward import toy  # noqa: E402
from torch import distributed  # noqa: E402

from trainwright.runtime.align.packed import as_long_as  # noqa: E402
from trainwright.runtime.align.reward.objective import RewardObjective  # noqa: E402
from trainwright.runtime.align.reward.ranked import Schedule  # noqa: E402
from trainwright.runtime.align.reward.scores import values  # noqa: E402
from trainwright.runtime.train import parallel, step  # noqa: E402
from trainwright.runtime.train.model import model_of  # noqa: E402
from trainwright.runtime.train.optimizer import build_optimizer, set_learning_rate, wrap  # noqa: E402
from trainwright.spec.plan import RewardStage  # noqa: E402


def trained(stage: RewardStage, folder: Path) -> dict[str, Any]:
    lists = toy.read(folder, stage)
    schedule = Schedule(lists, stage)
    objective = RewardObjective(stage, lists, schedule)
    chunks = model_of(stage, seed=stage.seed, head="score")
    wrapped = wrap(chunks, stage.layout)
    optimizer = build_optimizer(wrapped, stage.optimizer, stage.layout, stage.precision)
    set_learning_rate(optimizer, 1e-3)
    steps = []
    for number in range(as_long_as(stage, len(schedule)).steps):
        figures, norm = step.train_step(wrapped, optimizer, objective, objective.micro_batches(number))
        totals = step.over_all_ranks(figures).tolist()
        steps.append([objective.metrics(totals)["train/loss"], norm, *totals])
    found = values(wrapped, toy.conversations(lists)[:50], row_length=toy.LENGTH)
    scores = np.concatenate(found)
    everyone: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(everyone, scores)
    assert all(np.array_equal(scores, other) for other in everyone), "not every rank has the same values"
    return {"steps": steps, "values": scores.tolist()}


def main() -> None:
    torch.set_num_threads(1)
    rank, world_size, path = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    job = json.loads(path.read_text())
    results = []
    for number, changes in enumerate(job["layouts"]):
        stage = toy.stage(changes, model=job.get("model"), epochs=1)
        meeting = f"file://{path.with_suffix(f'.{number}.meeting')}"
        parallel.initialize(stage.layout, seed=1, rank=rank, world_size=world_size, init_method=meeting, timeout_s=300)
        results.append(trained(stage, Path(job["folder"])))
        parallel.finalize()
    if rank == 0:
        path.with_suffix(".result").write_text(json.dumps(results))


if __name__ == "__main__":
    main()
