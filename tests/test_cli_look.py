"""Looking at a plan through the command line: one stage in depth, all assumptions, the page."""

import json
from pathlib import Path
from typing import Any

PIPELINED = ("-s", "topology.pipeline=4", "-s", "topology.zero_group=8")


def test_one_stage_in_depth(workspace: Any) -> None:
    done = workspace.trainwright("plan", "examples/internlm2-7b.toml", "--stage", "4k", *PIPELINED)
    assert (done.returncode, done.stderr) == (0, "")
    for said in ("4k of internlm2-7b", "Memory per rank at its peak", "pp 3", "Time of a step", "Pipeline of a step"):
        assert said in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 110


def test_a_stage_of_a_saved_plan(workspace: Any) -> None:
    workspace.trainwright("plan", "examples/tiny.toml", "-o", "plan.json", "-q")
    done = workspace.trainwright("show", "plan.json", "--stage", "tokenizer")
    assert done.returncode == 0
    assert "tokenizer of tiny: 4,096 pieces" in done.stdout
    document = json.loads(workspace.trainwright("show", "plan.json", "--stage", "short", "--json").stdout)
    assert document["estimate"]["stage"] == "short"


def test_a_stage_that_is_not_there_is_2_with_the_nearest(workspace: Any) -> None:
    done = workspace.trainwright("plan", "examples/tiny.toml", "--stage", "shrot")
    assert done.returncode == 2
    assert done.stderr == "error: `tiny` has no stage `shrot`; did you mean `short`?\n"
    assert done.stdout == ""


def test_assumptions_are_counted_and_listed_on_demand(workspace: Any) -> None:
    few = workspace.trainwright("plan", "examples/tiny.toml").stdout
    all_of_them = workspace.trainwright("plan", "examples/tiny.toml", "-v").stdout
    assert "values that nobody wrote are assumed: -v lists them." in few
    assert "run.log_every" not in few
    assert "run.log_every" in all_of_them


def test_the_page_is_written_where_one_says(workspace: Any) -> None:
    done = workspace.trainwright("plan", "examples/internlm2-7b.toml", "--html", "pages/plan.html")
    assert done.returncode == 0
    assert done.stdout.endswith("wrote pages/plan.html\n")
    page: Path = workspace.folder / "pages" / "plan.html"
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert page.stat().st_size < 1_000_000  # 1,024 GPUs


def test_a_page_that_cannot_be_written_is_1_with_the_reason(workspace: Any) -> None:
    done = workspace.trainwright("plan", "examples/tiny.toml", "--html", "examples")
    assert done.returncode == 1
    assert done.stderr == "error: cannot write examples: Is a directory\n"


def test_a_spec_is_not_looked_at_with_show(workspace: Any) -> None:
    done = workspace.trainwright("show", "examples/tiny.toml", "--stage", "short")
    assert done.returncode == 2
    assert "`trainwright plan examples/tiny.toml` shows its stages" in done.stderr
