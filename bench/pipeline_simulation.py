"""Does the simulated pipeline take as long as the real one: Megatron-core's schedules, with passes that only sleep.

    python bench/pipeline_simulation.py [--scale 0.12] [--out bench/results]

Each pipeline rank is a process; activations of 64 numbers travel over gloo by Megatron's own exchanges, and a forward
pass is a sleep of `scale` seconds divided by the chunks, a backward pass of twice that. So what is measured is the
order of passes and who waits for whom. What remains is the latency of gloo and of waking up.
"""

import argparse
import json
import os
import platform
import time
import warnings
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from torch import distributed, full, multiprocessing, set_num_threads, tensor, zeros
from torch.multiprocessing.spawn import spawn

from trainwright.compiler.cost.schedule import timeline
from trainwright.runtime import host
from trainwright.spec.plan import ChunkTime

# (pipeline ranks, chunks a rank, micro-batches, what the last chunk has more, as a share of a rank's forward pass)
CASES = (
    (2, 1, 8, 0.0),
    (4, 1, 8, 0.0),
    (4, 1, 8, 0.67),
    (4, 1, 3, 0.67),
    (4, 2, 8, 0.0),
    (4, 2, 8, 0.67),
    (2, 3, 8, 1.0),
)


def chunk_times(pipeline: int, chunks: int, head: float, scale: float) -> list[ChunkTime]:
    times = []
    for rank in range(pipeline):
        for chunk in range(chunks):
            more = head * scale if (rank, chunk) == (pipeline - 1, chunks - 1) else 0.0
            forward_s, backward_s = scale / chunks + more, 2 * (scale / chunks + more)
            times.append(
                ChunkTime(pipeline_rank=rank, chunk=chunk, forward_s=forward_s, backward_s=backward_s, weight_s=0.0)
            )
    return times


def worker(
    rank: int, pipeline: int, chunks: int, micro_batches: int, times: list[ChunkTime], port: int, to: Any
) -> None:
    """One pipeline rank: runs the step twice, and rank 0 reports the second one's seconds."""
    host.install()
    warnings.simplefilter("ignore")  # what Megatron warns of at import is tested elsewhere
    set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=pipeline)
    own = {each.chunk: each for each in times if each.pipeline_rank == rank}
    for _ in range(2):
        distributed.barrier()
        start = time.perf_counter()
        step(pipeline, chunks, micro_batches, own)
        distributed.barrier()
        took_s = time.perf_counter() - start
    if rank == 0:
        to.put(took_s)
    distributed.barrier()
    distributed.destroy_process_group()


def step(pipeline: int, chunks: int, micro_batches: int, own: dict[int, ChunkTime]) -> None:
    """Megatron's schedule function, its forward and backward pass replaced."""
    import torch
    from megatron.core.enums import ModelType
    from megatron.core.pipeline_parallel import schedules
    from megatron.core.pipeline_parallel.p2p_communication import P2PCommunicator
    from megatron.core.transformer.transformer_config import TransformerConfig

    def forward(*_: Any, vp_stage: int | None = None, **__: Any) -> Any:
        chunk = vp_stage or 0
        time.sleep(own[chunk].forward_s)
        result = full((8, 1, 8), float(chunk))
        return (result if chunks > 1 else [result]), tensor(0)

    def backward(_: Any, output: Any, *__: Any) -> Any:
        result = output if chunks > 1 else output[0]
        time.sleep(own[int(result[0, 0, 0])].backward_s)
        gradient = zeros(8, 1, 8)
        return gradient if chunks > 1 else [gradient]

    class Chunk(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config, self.model_type = config, ModelType.encoder_or_decoder

    config = TransformerConfig(
        num_layers=pipeline * chunks,
        hidden_size=8,
        num_attention_heads=1,
        pipeline_model_parallel_size=pipeline,
        virtual_pipeline_model_parallel_size=chunks if chunks > 1 else None,
        pipeline_dtype=torch.float32,
        batch_p2p_comm=False,  # gloo has none
    )
    alone = SimpleNamespace(size=lambda: 1, rank=lambda: 0)
    ranks = distributed.group.WORLD
    groups = SimpleNamespace(tp=alone, cp=alone, embd=None, pos_embd=None, pp=ranks, dp_cp=alone)
    schedules.forward_step, schedules.backward_step = forward, backward
    run = (
        schedules.forward_backward_pipelining_with_interleaving
        if chunks > 1
        else schedules.forward_backward_pipelining_without_interleaving
    )
    run(
        forward_step_func=None,
        data_iterator=[None] * chunks,
        model=[Chunk() for _ in range(chunks)],
        num_microbatches=micro_batches,
        seq_length=8,
        micro_batch_size=1,
        p2p_communicator=P2PCommunicator(ranks, config),
        pg_collection=groups,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=0.12, help="seconds of a rank's forward pass")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    rows = []
    for index, (pipeline, chunks, micro_batches, head) in enumerate(CASES):
        times = chunk_times(pipeline, chunks, head, arguments.scale)
        to = multiprocessing.get_context("spawn").Queue()
        given = (pipeline, chunks, micro_batches, times, 29_600 + index, to)
        spawn(worker, args=given, nprocs=pipeline)  # type: ignore[no-untyped-call]
        took_s = to.get()
        line = timeline(times, micro_batches, "interleaved" if chunks > 1 else "1f1b", 0.0)
        row = {
            "pipeline": pipeline,
            "chunks": chunks,
            "micro_batches": micro_batches,
            "head": head,
            "measured_s": took_s,
            "simulated_s": line.span_s,
            "error_pct": 100 * (line.span_s / took_s - 1),
        }
        rows.append(row)
        shape = f"PP {pipeline} x {chunks} chunks, {micro_batches} micro-batches, last chunk +{head:g}"
        seconds = f"measured {took_s:.3f} s, simulated {line.span_s:.3f} s"
        print(f"{shape}: {seconds}, {row['error_pct']:+.2f} %", flush=True)
    machine = f"{os.cpu_count()}-core-{platform.machine()}"
    file = arguments.out / machine / f"{datetime.now(UTC):%Y-%m-%d}-pipeline-simulation.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"machine": machine, "scale_s": arguments.scale, "rows": rows}, indent=2) + "\n")
    print(f"wrote {file}")


if __name__ == "__main__":
    main()
