"""The entry of a process that traces one rank: `python -m trainwright.runtime.trace.worker`.

Reads a TraceJob on stdin, writes the TracedRank on stdout, both as JSON. What it does to torch and to Megatron-core
is global, so the process ends with its rank.
"""

import sys
import time

import msgspec

from trainwright.runtime import host
from trainwright.runtime.trace.trace import passes
from trainwright.spec.plan import RankMemory
from trainwright.spec.traced import TracedRank, TraceJob

_STATES = ("parameters", "gradients", "optimizer", "logits", "communication", "temporaries")


def trace(job: TraceJob) -> TracedRank:
    """The rank's step runs, and no memory is taken. Raises UnsupportedLayoutError."""
    from trainwright.runtime.trace.fake_world import fake_world
    from trainwright.runtime.trace.rank import trace_step

    began = time.perf_counter()
    layout = job.stage.layout
    pipeline_rank = layout.coordinates(job.rank).pipeline
    micro_batches = passes(layout, pipeline_rank)
    with fake_world(layout, job.rank, on_gpu=job.device == "cuda"):
        allocations = trace_step(job.stage, micro_batches=micro_batches)
    return TracedRank(
        stage=job.stage.name,
        rank=job.rank,
        memory=rank_memory(pipeline_rank, allocations.peak.kinds, allocations.peak.moment),
        micro_batches=micro_batches,
        operators=allocations.operators,
        seconds=time.perf_counter() - began,
    )


def rank_memory(pipeline_rank: int, kinds: dict[str, int], moment: str) -> RankMemory:
    """The kinds of a peak in the words of the plan."""
    parts = {f"{kind}_bytes": kinds.get(kind, 0) for kind in _STATES}
    activations = {kind: size for kind, size in sorted(kinds.items()) if kind not in _STATES}
    parts["activations_bytes"] = sum(activations.values())
    return RankMemory(
        pipeline_rank=pipeline_rank,
        activations=activations,
        framework_bytes=0,
        total_bytes=sum(parts.values()),
        peak=moment,
        binds=max(parts, key=lambda name: parts[name]).removesuffix("_bytes"),
        **parts,
    )


def main() -> None:
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=TraceJob)
    host.install()
    from trainwright.kernels.attention import KernelMissing
    from trainwright.runtime.train.parallel import UnsupportedLayoutError

    try:
        traced = trace(job)
    except (UnsupportedLayoutError, KernelMissing) as error:
        sys.exit(f"the runtime cannot run this: {error}")
    sys.stdout.buffer.write(msgspec.json.encode(traced))


if __name__ == "__main__":
    main()
