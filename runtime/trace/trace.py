"""Traces ranks of a planned phase, each in a process of its own, two at a time."""

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import msgspec

from trainwright.spec.plan import Layout
from trainwright.spec.traced import TracedRank, TraceJob

_AT_ONCE = 2


class TraceError(Exception):
    """A rank could not be traced; the message says why."""


def fullest_ranks(layout: Layout) -> list[int]:
    """The first rank of each pipeline rank: the others hold the same, but for shards that are a little smaller."""
    return list(range(0, layout.world_size, layout.world_size // layout.pipeline))


def passes(layout: Layout, pipeline_rank: int) -> int:
    """Micro-batches that reach the peak: those in flight at once and one more."""
    if layout.virtual_pipeline > 1:
        return min(layout.micro_batches, 2 * layout.pipeline)
    return min(layout.micro_batches, layout.pipeline - pipeline_rank + 1)


def trace(jobs: Iterable[TraceJob]) -> Iterator[TracedRank]:
    """What each job's rank allocates, in the order of the jobs. Raises TraceError."""
    missing = [name for name in ("torch", "megatron.core", "einops") if not _installed(name)]
    if missing:
        raise TraceError(
            f"tracing memory runs the training code, which needs {', '.join(missing)}: "
            "install trainwright with its extra [train]"
        )
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        yield from pool.map(_trace, jobs)


def _installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _trace(job: TraceJob) -> TracedRank:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "trainwright.runtime.trace.worker"],
        input=msgspec.json.encode(job),
        capture_output=True,
        # It must see a CPU wherever it runs, and needs no device.
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
    )
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise TraceError(f"rank {job.rank} of `{job.stage.name}`: {lines[-1] if lines else 'the process was killed'}")
    return msgspec.json.decode(done.stdout, type=TracedRank)
