"""Every layout gives the answers of one process, on every rank."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.worlds import Worlds

TIED = {"tie_embeddings": True}
FOURS: dict[str, dict[str, Any]] = {
    "TP 2 x DP 2": {"layout": {"tensor": 2, "data": 2}, "model": {}},
    "TP 2 + SP x PP 2": {"layout": {"tensor": 2, "sequence_parallel": True, "pipeline": 2}, "model": TIED},
    "PP 2 x VPP 2 x CP 2": {
        "layout": {"pipeline": 2, "virtual_pipeline": 2, "schedule": "interleaved", "context": 2},
        "model": {},
    },
}


def everywhere(worlds: Worlds, processes: int, cases: list[dict[str, Any]], folder: Path) -> Any:
    """By case and rank, what world.py gives."""
    path = folder / f"{processes}.json"
    path.write_text(json.dumps(cases))
    assert worlds.run("tests.runtime.generate.world", processes, path)
    return json.loads(path.with_suffix(".result").read_text())


@pytest.mark.slow
def test_every_layout_gives_the_answers_of_one_process_on_every_rank(worlds: Worlds, tmp_path: Path) -> None:
    (plain,), (tied,) = everywhere(worlds, 1, [{"layout": {}, "model": model} for model in ({}, TIED)], tmp_path)
    assert len({len(row["tokens"]) for row in plain[1]}) > 1  # rows end at different times
    assert any(row["stopped"] for row in plain[1])
    for (name, case), ranks in zip(FOURS.items(), everywhere(worlds, 4, list(FOURS.values()), tmp_path), strict=True):
        reference = tied if case["model"] else plain
        assert all(own == ranks[0] for own in ranks), name
        for rows, expected in zip(ranks[0], reference, strict=True):
            for row, other in zip(rows, expected, strict=True):
                assert (row["tokens"], row["stopped"]) == (other["tokens"], other["stopped"]), name
                assert row["log_probs"] == pytest.approx(other["log_probs"], rel=0, abs=1e-5), name
