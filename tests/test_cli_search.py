"""`plan --search` on the command line."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.compiler.support import write_spec

from trainwright.cli import main
from trainwright.compiler.pipeline import questions_of
from trainwright.compiler.search.clusters import on_nodes
from trainwright.compiler.search.question import Request
from trainwright.spec.load import load
from trainwright.spec.plan import PhaseStage, decode

CLUSTER = """
[run]
name = "base"
[model]
preset = "internlm2-1.8b"
[cluster]
gpu = "a800-80gb"
nodes = 2
gpus_per_node = 8
[[phases]]
name = "4k"
tokens = "20B"
sequence_length = 4096
tokens_per_step = "4Mi"
mixture = "base"
learning_rate = { peak = 1e-3 }
[[phases]]
name = "32k"
tokens = "2B"
sequence_length = 32_768
mixture = "base"
"""


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    write_spec(tmp_path, CLUSTER)
    monkeypatch.chdir(tmp_path)
    return "spec.toml"


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["plan", *arguments, "--search"])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    code, out, err = told(capsys, *arguments, "--json")
    assert (code, err) == (0, "")
    document: dict[str, Any] = json.loads(out)
    return document


def test_the_best_come_side_by_side_with_why_the_others_lose(spec: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = told(capsys, spec, "--top", "3")
    assert (code, err) == (0, "")
    assert "No value says `auto`" in out
    assert out.count("chosen") == 2
    assert "over 90% of the card" in out
    assert re.search(r"\+\d+% [a-z]+", out)
    assert "cannot execute yet are left out" in out


def test_what_it_says_to_write_down_gives_the_same_plan(
    spec: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = as_json(capsys, spec, "-o", "found.json")
    plan = decode((tmp_path / "found.json").read_bytes())
    for phase in found["phases"]:
        stage = plan.stage(phase["phase"])
        assert isinstance(stage, PhaseStage)
        assert {key: getattr(stage.layout, key) for key in phase["chosen"]} == phase["chosen"]
    sets = [
        f"-sphases.{phase['phase']}.topology.{key}={json.dumps(value)}"
        for phase in found["phases"]
        for key, value in phase["chosen"].items()
    ]
    assert main(["plan", spec, "-q", "-o", "written.json", *sets]) == 0
    written = decode((tmp_path / "written.json").read_bytes())
    assert [written.stage(name).layout for name in ("4k", "32k")] == [plan.stage(name).layout for name in ("4k", "32k")]  # type: ignore[union-attr]


def test_pinned_values_stay(spec: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(capsys, spec, "-s", "topology=auto", "-s", "topology.tensor=4", "-s", "topology.recompute=full")
    layouts = [row["layout"] for phase in found["phases"] for row in phase["layouts"]]
    assert {(layout["tensor"], layout["recompute"]) for layout in layouts} == {(4, "full")}
    assert not found["unwritten_values_were_free"]


def test_all_takes_in_what_cannot_be_executed_yet(spec: str, capsys: pytest.CaptureFixture[str]) -> None:
    few, every = as_json(capsys, spec), as_json(capsys, spec, "--all")
    for ours, theirs in zip(few["phases"], every["phases"], strict=True):
        assert theirs["legal"] == ours["legal"] + ours["left_out"]
        assert theirs["left_out"] == 0


def test_the_fewest_nodes_by_the_deadline(spec: str, capsys: pytest.CaptureFixture[str]) -> None:
    asked = questions_of(load(Path(spec)), Request())
    assert asked is not None
    deadline_s = 0.7 * (on_nodes(*asked, 1).duration_s or 0.0)
    code, out, _ = told(capsys, spec, "--objective", "gpus", "-s", f"budget.deadline={deadline_s:.0f}s", "--json")
    found = json.loads(out)
    tried = {each["nodes"]: each["duration_s"] for each in found["clusters"]}
    assert code == 0
    assert found["nodes"] == max(tried) > 1
    assert tried[found["nodes"]] < deadline_s < tried[1]


def test_the_fewest_nodes_by_when_has_to_be_said(spec: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = told(capsys, spec, "--objective", "gpus")
    assert code == 2
    assert "deadline" in err


def test_the_cheapest_cluster_takes_the_fewest_gpu_hours(spec: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(capsys, spec, "--objective", "cost")
    hours = {each["nodes"]: each["gpu_hours"] for each in found["clusters"] if each["gpu_hours"] is not None}
    assert hours[found["nodes"]] == min(hours.values())


def test_mistakes_are_told_as_ever(spec: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = told(capsys, spec, "-s", "cluster.gpu=h10")
    assert (code, out) == (2, "")
    assert "TW320" in err
    code, _, err = told(capsys, spec, "-s", "topology.tensor=3")
    assert code == 3
    assert "TW340" in err
    assert "tensor =" in err


def test_where_no_cluster_is_in_time_it_is_said(spec: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = told(capsys, spec, "--objective", "gpus", "-s", "budget.deadline=1min", "-s", "cluster.nodes=1")
    assert (code, out) == (3, "")
    assert "no cluster of up to 8 nodes" in err


@pytest.mark.parametrize("words", [("--top", "3"), ("--all",), ("--objective", "cost")])
def test_what_belongs_to_the_search_does_nothing_without_it(
    words: tuple[str, ...], spec: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", spec, *words]) == 2
    assert "`--search`" in capsys.readouterr().err
