"""The entry of a process that traces ranks: `python -m trainwright.runtime.trace.worker`.

Reads a list of TraceJobs on stdin and writes an Answer to each as a line on stdout, in their order, as JSON. What a
trace does to torch and to Megatron-core is global, so each rank has a process that ends with it: a fork of this one,
which has imported everything.
"""

import importlib
import os
import sys
import time
from collections import deque

import msgspec

from trainwright.runtime import host
from trainwright.runtime.trace.trace import Answer, passes
from trainwright.spec.plan import RankMemory
from trainwright.spec.traced import TracedRank, TraceJob

_AT_ONCE = 2
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
    jobs = msgspec.json.decode(sys.stdin.buffer.read(), type=list[TraceJob])
    host.install()
    importlib.import_module("trainwright.runtime.trace.rank")  # so that no fork does
    running: deque[tuple[int, int]] = deque()
    for job in jobs:
        if len(running) == _AT_ONCE:
            _pass_on(*running.popleft())
        running.append(_fork(job))
    while running:
        _pass_on(*running.popleft())


def _fork(job: TraceJob) -> tuple[int, int]:
    """The id of a process that traces the job's rank, and the end of a pipe on which it answers."""
    read, write = os.pipe()
    process = os.fork()
    if process:
        os.close(write)
        return process, read
    try:
        with os.fdopen(write, "wb") as out:
            out.write(msgspec.json.encode(_answer(job)))
    finally:
        os._exit(0)


def _answer(job: TraceJob) -> Answer:
    from trainwright.kernels.attention import KernelMissing
    from trainwright.runtime.train.parallel import UnsupportedLayoutError

    try:
        return Answer(traced=trace(job))
    except (UnsupportedLayoutError, KernelMissing) as error:
        return Answer(failure=f"the runtime cannot run this: {error}")
    except Exception as error:
        return Answer(failure=f"{type(error).__name__}: {error}")


def _pass_on(process: int, read: int) -> None:
    with os.fdopen(read, "rb") as answers:
        answer = answers.read() or msgspec.json.encode(Answer(failure="the process was killed"))
    os.waitpid(process, 0)
    sys.stdout.buffer.write(answer + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
