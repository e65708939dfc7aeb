"""One process of a small world that does rounds of PPO: `python -m tests.runtime.align.ppo.world RANK WORLD JOB.json`.

Run by the fixture `world` (conftest.py), not collected. A job is {"folder", "layouts": [...], "out": [...], "changes",
"kill": [phase, iteration], "stop": such a place or null for each layout, "apart": whether weights move, as where the
host has memory of its own}; rank 0 keeps each layout's summary beside the job.
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
from tests.runtime.align.ppo import toy  # noqa: E402
from torch import distributed  # noqa: E402
from torch._C._distributed_c10d import FileStore  # noqa: E402

from trainwright.runtime.align.ppo import iteration, models, rows, split  # noqa: E402
from trainwright.runtime.align.ppo import stage as ppo  # noqa: E402
from trainwright.runtime.train import checkpoint, parallel  # noqa: E402

DEADLY: list[tuple[Any, str]] = [
    (iteration, "generate"), (rows, "forward_pass"), (models, "train_step"), (checkpoint, "save")
]  # fmt: skip


def begun(events: Path) -> list[list[Any]]:
    """The phases that have begun, [phase, iteration] each."""
    lines = events.read_text().splitlines() if events.exists() else []
    return [[row["phase"], row["iteration"]] for row in map(json.loads, lines) if row["event"] == "ppo_phase"]


def die_inside(place: list[Any], events: Path) -> None:
    """This process kills itself in the middle of that phase: after its forward passes, or between its two saves."""

    def dying(function: Any) -> Any:
        def called(*args: Any, **options: Any) -> Any:
            result = function(*args, **options)
            if begun(events)[-1:] == [place]:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return called

    for module, name in DEADLY:
        setattr(module, name, dying(getattr(module, name)))


def meet(file: str, rank: int, world_size: int) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=world_size)


def main() -> None:
    torch.set_num_threads(1)
    rank, world_size, path = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    job = json.loads(path.read_text())
    folder = Path(job["folder"])
    results, stops = [], job.get("stop", [None] * len(job["out"]))
    for number, (layout, out) in enumerate(zip(job["layouts"], job["out"], strict=True)):
        stage = toy.stage(layout, **job.get("changes", {}))
        if not (folder / "sft").exists():
            meet(f"{path}.start", rank, world_size)
            parallel.initialize(stage.layout, seed=1)
            if rank == 0:
                toy.write_data(folder)
            toy.write_starts(folder, stage)
            parallel.finalize()
        place = None
        if stage.placement_kind == "split":
            place = split.Place(FileStore(f"{path}.{number}", world_size), rank)
        else:
            meet(f"{path}.{number}", rank, world_size)
        events = Path(out) / "events.jsonl"
        Path(out).mkdir(exist_ok=True)
        if job.get("apart"):
            models.has_host_apart = lambda: True
        if "kill" in job:
            die_inside(job["kill"], events)
        summary = ppo.train(
            stage,
            estimate=None,
            inputs=toy.inputs(folder),
            vocabulary=toy.Letters(),  # type: ignore[arg-type]
            root=folder,
            out=Path(out),
            run_folder=Path(out),
            should_stop=lambda: stops[number] in begun(events),  # noqa: B023
            place=place,
        )
        results.append(summary.to_dict())
    if rank == 0:
        path.with_suffix(".result").write_text(json.dumps(results))


if __name__ == "__main__":
    main()
