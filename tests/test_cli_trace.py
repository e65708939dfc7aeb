"""`plan --trace-memory` on the command line."""

import json
from typing import Any

import pytest

from trainwright.cli import main
from trainwright.runtime.trace import trace

SPEC = """
[run]
name = "big"
[model]
preset = "internlm2-20b"
[tokenizer]
path = "tokenizer.model"
[data.sources.code]
path = "python://stdlib"
tokens = "1B"
[data.mixtures]
base = { code = 1 }
[cluster]
nodes = 128
gpus_per_node = 8
gpu = "a800-80gb"
[topology]
tensor = 2
pipeline = 4
[[phases]]
name = "4k"
tokens = "1B"
sequence_length = 4096
tokens_per_step = "4Mi"
mixture = "base"
learning_rate = { peak = 1e-3 }
"""
BIG = ("plan", "big.toml", "--trace-memory")


@pytest.fixture
def big(workspace: Any) -> Any:
    """A workspace with a spec of 20B on 1,024 GPUs."""
    (workspace.folder / "big.toml").write_text(SPEC)
    (workspace.folder / "tokenizer.model").write_bytes(b"")
    return workspace


@pytest.mark.slow
def test_any_rank_of_a_big_world_is_traced_here(big: Any) -> None:
    done = big.trainwright(*BIG, "--rank", "1023", "--json", timeout=300)
    assert done.returncode == 0, done.stderr
    (phase,) = json.loads(done.stdout)
    (rank,) = phase["ranks"]
    assert phase["stage"] == "4k"
    assert rank["agrees"], rank
    assert rank["operators"] > 10_000


def test_a_rank_that_is_not_there_is_2(big: Any) -> None:
    done = big.trainwright(*BIG, "--rank", "1000000")
    assert done.returncode == 2
    assert "there is no rank 1000000" in done.stderr


@pytest.mark.slow
def test_what_the_runtime_cannot_run_is_1_and_one_sentence(big: Any) -> None:
    done = big.trainwright(*BIG, "-s", "topology.zero=2")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "the runtime cannot run this: zero = 2 is not built yet" in done.stderr


def test_a_stage_that_trains_nothing_is_2(big: Any) -> None:
    done = big.trainwright(*BIG, "--stage", "ingest")
    assert done.returncode == 2
    assert "no training phase" in done.stderr


def test_without_the_runtimes_packages_it_is_1_and_one_sentence(
    big: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(big.folder)
    monkeypatch.setattr(trace, "_installed", lambda name: False)
    assert main([*BIG]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "needs torch, megatron.core, einops" in captured.err
