"""A phase that was killed, stopped, or is continued elsewhere goes on as if nothing had happened."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainwright.runtime.train import checkpoint

World = Callable[..., Any]
JOB = {"do": "phase", "steps": 12, "every_steps": 4}


def losses(out: Path) -> dict[int, float]:
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))  # each step once, in order
    return {row["step"]: row["train/loss"] for row in rows}


@pytest.mark.slow
def test_killed_between_checkpoints_the_rest_is_equal_bit_by_bit(world: World, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    world(1, **JOB, layouts=[{}], out=[str(whole)])
    assert world(1, **JOB, layouts=[{}], out=[str(killed)], kill_after=7) is None
    assert list(losses(killed)) == list(range(1, 7))
    leftover = killed / "checkpoints" / "iter_0000006.tmp"
    leftover.mkdir()
    (summary,) = world(1, **JOB, layouts=[{}], out=[str(killed)])
    assert summary["continued_from"] == 4
    assert not summary["interrupted"]
    assert losses(killed) == losses(whole)
    assert not leftover.exists()
    assert sorted(path.name for path in (killed / "checkpoints").iterdir()) == [
        "iter_0000008",
        "iter_0000012",
        "latest_checkpointed_iteration.txt",
    ]
    state = checkpoint.read_state(killed / "checkpoints" / "iter_0000012")
    assert state.consumed_tokens == 12 * 8 * 32
    assert state.consumed_tokens_by_source == {"code": 12 * 4 * 32, "prose": 12 * 4 * 32}


@pytest.mark.slow
def test_a_checkpoint_of_one_layout_goes_on_under_another(world: World, tmp_path: Path) -> None:
    whole, moved = tmp_path / "whole", tmp_path / "moved"
    world(2, **JOB, layouts=[{"tensor": 2}], out=[str(whole)])
    assert world(2, **JOB, layouts=[{"tensor": 2}], out=[str(moved)], stop_after=6)[0]["interrupted"]
    elsewhere = {"PP 2": {"pipeline": 2}, "DP 2": {"data": 2}, "TP 2": {"tensor": 2}, "CP 2": {"context": 2}}
    for name in elsewhere:
        shutil.copytree(moved, tmp_path / name)
    outs = [str(tmp_path / name) for name in elsewhere]
    summaries = world(2, **JOB, layouts=list(elsewhere.values()), out=outs)
    assert [summary["continued_from"] for summary in summaries] == [6, 6, 6, 6]
    expected = losses(whole)
    for name in elsewhere:
        for step, loss in losses(tmp_path / name).items():
            assert loss == pytest.approx(expected[step], rel=0 if name == "TP 2" else 1e-5, abs=0), (name, step)


@pytest.mark.slow
def test_groups_that_share_an_optimizer_may_change_between_runs(world: World, tmp_path: Path) -> None:
    whole, first, second = (tmp_path / name for name in ("whole", "first", "second"))
    world(1, **JOB, layouts=[{}], out=[str(whole)])
    groups, axis = {"data": 4, "zero_group": 2}, {"data": 4}
    outs = [str(first), str(second)]
    stopped = world(4, **JOB, layouts=[groups, axis], out=outs, stop_after=6)
    assert all(summary["interrupted"] for summary in stopped)
    continued = world(4, **JOB, layouts=[axis, groups], out=outs)
    assert [summary["continued_from"] for summary in continued] == [6, 6]
    expected = losses(whole)
    for out in (first, second):
        assert losses(out) == pytest.approx(expected, rel=1e-5, abs=0), out.name


@pytest.mark.slow
def test_a_later_phase_starts_from_the_weights_and_the_optimizer_of_an_earlier_one(
    world: World, tmp_path: Path
) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    world(2, **JOB, precision="bf16", layouts=[{"data": 2}], out=[str(before)])
    (summary,) = world(1, **JOB, precision="bf16", layouts=[{}], out=[str(after)], start=str(before))
    assert summary["continued_from"] is None
    assert losses(after)[1] < losses(before)[8]
    assert checkpoint.read_state(after / "checkpoints" / "iter_0000012").optimizer_steps == 24
