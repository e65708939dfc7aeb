"""`plan --trace-memory` on the command line."""

import json
from typing import Any

import pytest

from trainwright.cli import main
from trainwright.runtime.trace import trace

BIG = ("plan", "examples/internlm2-1.8b.toml", "--trace-memory")


@pytest.mark.slow
def test_any_rank_of_a_big_world_is_traced_here(workspace: Any) -> None:
    whole = ("-s", "topology.zero_group=256")
    done = workspace.trainwright(*BIG, *whole, "--stage", "4k", "--rank", "255", "--json", timeout=300)
    assert done.returncode == 0, done.stderr
    (phase,) = json.loads(done.stdout)
    (rank,) = phase["ranks"]
    assert phase["stage"] == "4k"
    assert rank["agrees"], rank
    assert rank["operators"] > 10_000


def test_a_rank_that_is_not_there_is_2(workspace: Any) -> None:
    done = workspace.trainwright(*BIG, "--rank", "1000000")
    assert done.returncode == 2
    assert "there is no rank 1000000" in done.stderr


@pytest.mark.slow
def test_what_the_runtime_cannot_run_is_1_and_one_sentence(workspace: Any) -> None:
    done = workspace.trainwright(*BIG, "--stage", "4k", "-s", "topology.zero_group=8")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "the runtime cannot run this: the optimizer is sharded over the whole data axis" in done.stderr


def test_a_stage_that_trains_nothing_is_2(workspace: Any) -> None:
    done = workspace.trainwright(*BIG, "--stage", "ingest")
    assert done.returncode == 2
    assert "no training phase" in done.stderr


def test_without_the_runtimes_packages_it_is_1_and_one_sentence(
    workspace: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workspace.folder)
    monkeypatch.setattr(trace, "_installed", lambda name: False)
    assert main([*BIG, "--stage", "4k"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "needs torch and megatron.core" in captured.err
