"""Toy data on disk, and worlds of several processes that learn it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import ROOT

from trainwright.runtime import host

# The stand-ins must be there before a test module imports anything of Megatron-core.
host.install()

World = Callable[..., list[Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.runtime.align.reward import toy

    return toy.write(tmp_path_factory.mktemp("conversations"))


@pytest.fixture
def world(tmp_path: Path, folder: Path) -> World:
    """`world(processes, layouts=[...], ...)`: what rank 0 of world.py gives, by layout."""

    def run(processes: int, **job: Any) -> list[Any]:
        path = tmp_path / f"{processes}.json"
        path.write_text(json.dumps({**job, "folder": str(folder)}))
        command = [sys.executable, "-m", "tests.runtime.align.reward.world"]
        workers = [
            subprocess.Popen(
                [*command, str(rank), str(processes), str(path)], cwd=ROOT, text=True,
                env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"},
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )
            for rank in range(processes)
        ]  # fmt: skip
        outputs = [worker.communicate(timeout=600)[0] for worker in workers]
        assert all(worker.returncode == 0 for worker in workers), "\n".join(outputs)
        results: list[Any] = json.loads(path.with_suffix(".result").read_text())
        return results

    return run
