"""Toy data on disk, and worlds of several processes that learn it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.worlds import Worlds

from trainwright.runtime import host

# The stand-ins must be there before a test module imports anything of Megatron-core.
host.install()

World = Callable[..., list[Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.runtime.align.reward import toy

    return toy.write(tmp_path_factory.mktemp("conversations"))


@pytest.fixture
def world(worlds: Worlds, tmp_path: Path, folder: Path) -> World:
    """`world(processes, layouts=[...], ...)`: what rank 0 of world.py gives, by layout."""

    def run(processes: int, **job: Any) -> list[Any]:
        path = tmp_path / f"{processes}.json"
        path.write_text(json.dumps({**job, "folder": str(folder)}))
        assert worlds.run("tests.runtime.align.reward.world", processes, path)
        results: list[Any] = json.loads(path.with_suffix(".result").read_text())
        return results

    return run
