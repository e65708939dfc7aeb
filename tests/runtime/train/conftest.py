"""Worlds of several processes, and a world of one inside the test."""

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.worlds import Worlds

from trainwright.runtime import host

host.install()

World = Callable[..., list[Any] | None]


@pytest.fixture
def world(worlds: Worlds, tmp_path: Path) -> World:
    """`world(processes, do=..., layouts=[...], ...)`: what rank 0 of world.py gives, None if a process was killed."""

    def run(processes: int, **job: Any) -> list[Any] | None:
        path = tmp_path / f"{uuid.uuid4().hex}.json"
        path.write_text(json.dumps(job))
        if not worlds.run("tests.runtime.train.world", processes, path):
            return None
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
