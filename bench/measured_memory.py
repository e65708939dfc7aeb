"""Does a trace tell what a process really takes: one training step on this machine's CPU, traced and then really run.

    python bench/measured_memory.py [--precision fp32] [--out bench/results]

Figures for the peak of one step of a small model in one process:
- traced: counted without memory (`plan --trace-memory`, as for a CPU);
- allocated: the same count over the real tensors of the real step;
- resident: how far the process's largest resident size, as the kernel tells it, lies above that before the model was
  built. It holds what no count of tensors does: freed memory that the C library keeps, work space of libraries, Python;
- resident, returned at once: the same with a C library told to give freed blocks above 64 KiB back to the kernel.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import psutil
from msgspec.structs import replace
from traced_memory import phase

from trainwright.runtime.trace.trace import trace
from trainwright.spec.plan import ModelPlan, PhaseStage
from trainwright.spec.traced import TraceJob

SMALL = ModelPlan(
    layers=8, hidden_size=768, heads=12, kv_heads=4, head_size=64, ffn_size=2048, vocab_size=8192, norm_eps=1e-5,
    init_std=0.02, attention_bias=False, tie_embeddings=False, parameters=0,
)  # fmt: skip
LENGTH, MICRO_BATCH = 1024, 4


def small_phase(precision: str) -> PhaseStage:
    stage = phase("1.8b", LENGTH, {"micro_batch": MICRO_BATCH})
    chunks = tuple(replace(chunk, last_layer=SMALL.layers) for chunk in stage.placement.chunks)
    placement = replace(stage.placement, chunks=chunks)
    layout = replace(stage.layout, micro_batches=2)
    small: PhaseStage = replace(stage, model=SMALL, layout=layout, placement=placement, precision=precision)
    return small


def measure(stage: PhaseStage) -> dict[str, int]:
    """The peak of the real step in this process, counted and resident."""
    from trainwright.runtime import host

    host.install()
    from trainwright.runtime.trace.rank import trace_step
    from trainwright.runtime.train import parallel

    parallel.single()
    before_bytes = psutil.Process().memory_info().rss
    allocations = trace_step(stage, micro_batches=stage.layout.micro_batches, seed=1)
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"allocated": allocations.peak.allocated_bytes, "resident": peak_bytes - before_bytes}


def in_a_process(precision: str, environment: dict[str, str]) -> dict[str, int]:
    """`measure` in a fresh process."""
    command = [sys.executable, __file__, "--precision", precision, "--here"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
    figures: dict[str, int] = json.loads(done.stdout)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--here", action="store_true", help="only run the step in this process, and print its figures")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    stage = small_phase(arguments.precision)
    if arguments.here:
        print(json.dumps(measure(stage)))
        return
    (traced,) = trace([TraceJob(stage=stage, rank=0, device="cpu")])
    returning = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    figures = {
        "traced": traced.memory.allocated_bytes,
        **in_a_process(arguments.precision, {}),
        "resident, returned at once": in_a_process(arguments.precision, returning)["resident"],
    }
    for name, size_bytes in figures.items():
        print(f"{name:28} {size_bytes / 2**20:9.1f} MiB  {size_bytes / figures['traced'] - 1:+.2%}")
    cores = os.cpu_count()
    name = f"{datetime.now(UTC):%Y-%m-%d}-measured-memory-{arguments.precision}.json"
    out = arguments.out / f"{cores}-core-{os.uname().machine}" / name
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"precision": arguments.precision, "bytes": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
