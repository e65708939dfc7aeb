"""Worlds that align a toy model, and a world of one inside the test."""

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.worlds import Worlds

from trainwright.runtime import host

host.install()

AlignWorld = Callable[..., list[dict[str, Any]] | None]


@pytest.fixture
def align_world(worlds: Worlds, tmp_path: Path) -> AlignWorld:
    """`align_world(processes, kind=..., layouts=[...], out=[...], ...)`: the summaries, None if one was killed."""

    def run(processes: int, **job: Any) -> list[dict[str, Any]] | None:
        path = tmp_path / f"{uuid.uuid4().hex}.json"
        path.write_text(json.dumps({"data": str(tmp_path), "start": str(tmp_path / "start"), **job}))
        if not worlds.run("tests.runtime.align.world", processes, path):
            return None
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
