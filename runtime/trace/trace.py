"""Traces ranks of planned phases in processes that are forks of one (see `worker.py`)."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import IO

import msgspec

from trainwright.spec.plan import Layout
from trainwright.spec.traced import TracedRank, TraceJob


class Answer(msgspec.Struct, frozen=True):
    """What the worker says of one job: the rank, or why it could not be traced."""

    traced: TracedRank | None = None
    failure: str | None = None


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
    jobs = list(jobs)
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(
            [sys.executable, "-P", "-m", "trainwright.runtime.trace.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            # It must see a CPU wherever it runs, and needs no device.
            env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        ) as worker,
    ):
        assert worker.stdin is not None
        assert worker.stdout is not None
        try:
            with worker.stdin as asked:
                asked.write(msgspec.json.encode(jobs))
            for job in jobs:
                line = worker.stdout.readline()
                answer = msgspec.json.decode(line, type=Answer) if line else Answer(failure=_last_line(said))
                if answer.traced is None:
                    raise TraceError(f"rank {job.rank} of `{job.stage.name}`: {answer.failure}")
                yield answer.traced
        finally:
            worker.terminate()


def _last_line(said: IO[bytes]) -> str:
    said.seek(0)
    lines = said.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "the process was killed"


def _installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False
