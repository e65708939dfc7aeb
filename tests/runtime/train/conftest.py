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


@pytest.fixture(scope="session")
def worlds() -> Iterator[subprocess.Popen[str]]:
    """The process that all worlds are forks of, so that torch and Megatron-core are imported once."""
    script = str(Path(__file__).with_name("world.py"))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}
    with subprocess.Popen(
        [sys.executable, script], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
    assert process.returncode == 0


@pytest.fixture
def world(worlds: subprocess.Popen[str], tmp_path: Path) -> World:
    """`world(processes, do=..., layouts=[...], ...)`: what rank 0 of world.py gives, None if a process was killed."""

    def run(processes: int, **job: Any) -> list[Any] | None:
        path = tmp_path / f"{uuid.uuid4().hex}.json"
        path.write_text(json.dumps(job))
        print(processes, path, file=worlds.stdin, flush=True)
        assert worlds.stdout is not None
        codes = json.loads(worlds.stdout.readline())
        if any(code < 0 for code in codes):
            return None
        said = [path.with_suffix(f".{rank}.log").read_text() for rank in range(processes)]
        assert not any(codes), "\n".join(said)
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
