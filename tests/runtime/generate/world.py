"""One process of a small world that generates: `python -m tests.runtime.generate.world RANK WORLD_SIZE JOB.json`.

Run by test_layouts.py, not collected. Rank 0 writes what every rank has, by layout, beside the job.
"""

import json
import sys
from pathlib import Path
from typing import Any

from trainwright.runtime import host

host.install()

import torch  # noqa: E402
from megatron.core import parallel_state  # noqa: E402
from tests.runtime.train.world import layout, model  # noqa: E402
from torch import distributed  # noqa: E402

from trainwright.runtime.generate.decode import cache_row_bytes  # noqa: E402
from trainwright.runtime.generate.generate import generate  # noqa: E402
from trainwright.runtime.generate.sampling import Sampling  # noqa: E402
from trainwright.runtime.generate.share import shared_out  # noqa: E402
from trainwright.runtime.train import parallel  # noqa: E402
from trainwright.runtime.train.model import build_model  # noqa: E402
from trainwright.runtime.train.optimizer import wrap  # noqa: E402
from trainwright.spec.plan import Layout  # noqa: E402

PROMPTS = [list(range(start, start + length)) for start, length in ((3, 9), (70, 1), (40, 4), (9, 17), (5, 2))]
SAMPLINGS = (
    Sampling(max_tokens=6, temperature=0.0, top_p=1.0),
    Sampling(max_tokens=14, temperature=1.0, top_p=0.9),
)


def answers(run_layout: Layout, changes: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """By sampling, what follows every prompt; three rows at a time at most."""
    chunks = build_model(
        model({"init_std": 0.1, "attention_bias": True, **changes}), run_layout, sequence_length=32,
        rope_base=10_000.0, precision="fp32", attention="auto", seed=1,
    )  # fmt: skip
    wrapped = wrap(chunks, run_layout)
    data = parallel_state.get_data_parallel_group()

    def some(sampling: Sampling, numbers: Any) -> list[dict[str, Any]]:
        results = generate(
            wrapped,
            [PROMPTS[number] for number in numbers],
            sampling,
            seeds=[100 + number for number in numbers],
            stop_tokens=frozenset(range(0, 256, 16)),
            vocabulary=250,
            cache_bytes=3 * cache_row_bytes(chunks, 17 + sampling.max_tokens),
        )
        return [vars(result) for result in results]

    return [
        shared_out(len(PROMPTS), lambda numbers, sampling=sampling: some(sampling, numbers), data)  # type: ignore[misc]
        for sampling in SAMPLINGS
    ]


def main() -> None:
    torch.set_num_threads(1)
    rank, world_size, path = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    results: list[Any] = []
    for number, case in enumerate(json.loads(path.read_text())):
        meeting = f"file://{path.with_suffix(f'.{number}.meeting')}"
        run_layout = layout(case["layout"])
        parallel.initialize(run_layout, seed=1, rank=rank, world_size=world_size, init_method=meeting, timeout_s=300)
        everywhere: list[Any] = [None] * world_size
        distributed.all_gather_object(everywhere, answers(run_layout, case["model"]))
        results.append(everywhere)
        parallel.finalize()
    if rank == 0:
        path.with_suffix(".result").write_text(json.dumps(results))


if __name__ == "__main__":
    main()
