"""Small worlds, one after another: `python -m tests.worlds`, asked by the fixture `worlds` (conftest.py).

A line of stdin is a JSON list [MODULE, PROCESSES, JOB]. Each process of the world is a fork of this one, which has
imported torch and Megatron-core, and runs as `python -m MODULE RANK PROCESSES JOB`. What it says lies beside the job.
A line of stdout is the list of their exit codes.
"""

import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ROOT = Path(__file__).parents[1]
_TIMEOUT_S = 600


class Worlds:
    """The process that all worlds are forks of."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, module: str, processes: int, job: Path) -> bool:
        """A world has run to its end: True, or False if one of its processes was killed; failures are raised."""
        print(json.dumps([module, processes, str(job)]), file=self._process.stdin, flush=True)
        assert self._process.stdout is not None
        codes = json.loads(self._process.stdout.readline())
        said = [_log(job, rank).read_text() for rank in range(processes)]
        assert not any(code > 0 for code in codes), "\n".join(said)
        return not any(codes)


@contextmanager
def forked_worlds() -> Iterator[Worlds]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.worlds"],
        cwd=_ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Worlds(process)
    assert process.returncode == 0


def _log(job: Path, rank: int) -> Path:
    return job.with_suffix(f".{rank}.log")


def _fork(module: str, rank: int, processes: int, job: Path) -> int:
    """The id of a new process."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        signal.alarm(_TIMEOUT_S)
        said = os.open(_log(job, rank), os.O_WRONLY | os.O_CREAT)
        os.dup2(said, 1)
        os.dup2(said, 2)
        sys.argv = [module, str(rank), str(processes), str(job)]
        runpy.run_module(module, run_name="__main__")
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    from trainwright.runtime import host

    host.install()
    importlib.import_module("trainwright.runtime.train.loop")
    for line in sys.stdin:
        module, processes, job = json.loads(line)
        ranks = [_fork(module, rank, processes, Path(job)) for rank in range(processes)]
        codes = [os.waitstatus_to_exitcode(os.waitpid(rank, 0)[1]) for rank in ranks]
        print(json.dumps(codes), flush=True)


if __name__ == "__main__":
    main()
