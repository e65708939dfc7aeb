"""Worlds of several processes, and a world of one inside the test."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from trainwright.runtime import host

host.install()

World = Callable[..., list[Any] | None]


@pytest.fixture
def world(tmp_path: Path) -> World:
    """`world(processes, do=..., layouts=[...], ...)`: what rank 0 of world.py gives, None if a process was killed."""

    def run(processes: int, **job: Any) -> list[Any] | None:
        path = tmp_path / f"{uuid.uuid4().hex}.json"
        path.write_text(json.dumps(job))
        script = str(Path(__file__).with_name("world.py"))
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}
        workers = [
            subprocess.Popen(
                [sys.executable, script, str(rank), str(processes), str(path)],
                env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
            for rank in range(processes)
        ]  # fmt: skip
        outputs = [worker.communicate(timeout=600)[0] for worker in workers]
        if any(worker.returncode < 0 for worker in workers):
            return None
        assert all(worker.returncode == 0 for worker in workers), "\n".join(outputs)
        result: list[Any] = json.loads(path.with_suffix(".result").read_text())
        return result

    return run


@pytest.fixture
def alone() -> Iterator[None]:
    """This process is a whole world of Megatron's."""
    from trainwright.runtime.train import parallel

    parallel.single()
    yield
    parallel.finalize()
