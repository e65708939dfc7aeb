"""Worlds of several processes that do rounds of PPO on toy models."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import ROOT

from trainwright.runtime import host

# The stand-ins must be there before a test module imports anything of Megatron-core.
host.install()

World = Callable[..., list[dict[str, Any]] | None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the stages before PPO leave; the first world fills it."""
    return tmp_path_factory.mktemp("before")


@pytest.fixture
def world(tmp_path: Path, folder: Path) -> World:
    """`world(processes, layouts=[...], out=[...], ...)`: the summaries, None if a process was killed."""

    def run(processes: int, **job: Any) -> list[dict[str, Any]] | None:
        path = tmp_path / f"{uuid.uuid4().hex}.json"
        path.write_text(json.dumps({**job, "folder": str(folder)}))
        command = [sys.executable, "-m", "tests.runtime.align.ppo.world"]
        workers = [
            subprocess.Popen(
                [*command, str(rank), str(processes), str(path)], cwd=ROOT, text=True,
                env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"},
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )
            for rank in range(processes)
        ]  # fmt: skip
        outputs = [worker.communicate(timeout=600)[0] for worker in workers]
        if any(worker.returncode < 0 for worker in workers):
            return None
        assert all(worker.returncode == 0 for worker in workers), "\n".join(outputs)
        results: list[dict[str, Any]] = json.loads(path.with_suffix(".result").read_text())
        return results

    return run
