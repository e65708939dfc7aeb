"""Worlds of several processes that align a toy model."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import ROOT

from trainwright.runtime import host

host.install()

AlignWorld = Callable[..., list[dict[str, Any]] | None]


@pytest.fixture
def align_world(tmp_path: Path) -> AlignWorld:
    """`align_world(processes, kind=..., layouts=[...], out=[...], ...)`: the summaries, None if one was killed."""

    def run(processes: int, **job: Any) -> list[dict[str, Any]] | None:
        path = tmp_path / f"{uuid.uuid4().hex}.json"
        path.write_text(json.dumps({"data": str(tmp_path), "start": str(tmp_path / "start"), **job}))
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}
        workers = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.runtime.align.world", str(rank), str(processes), str(path)],
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for rank in range(processes)
        ]
        outputs = [worker.communicate(timeout=600)[0] for worker in workers]
        if any(worker.returncode < 0 for worker in workers):
            return None
        assert all(worker.returncode == 0 for worker in workers), "\n".join(outputs)
        result: list[dict[str, Any]] = json.loads(path.with_suffix(".result").read_text())
        return result

    return run


@pytest.fixture
def alone() -> Iterator[None]:
    """This process is a whole world of Megatron's."""
    from trainwright.runtime.train import parallel

    parallel.single()
    yield
    parallel.finalize()
