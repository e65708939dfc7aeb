"""A sweep on the command line: all members of a matrix at once, or one of them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from trainwright.spec.plan import decode

SWEEP = """\
extends = ["tiny.toml"]

[[matrix]]
"cluster.gpus_per_node" = [1, 2, 3]
"phases.short.learning_rate.peak" = [3e-3, 4e-3]
"""


@pytest.fixture
def spec(workspace: Any) -> str:
    (workspace.folder / "examples" / "sweep.toml").write_text(SWEEP, encoding="utf-8")
    return "examples/sweep.toml"


def test_check_says_which_members_a_mistake_belongs_to(spec: str, workspace: Any) -> None:
    done = workspace.trainwright("check", spec)
    assert (done.returncode, done.stdout) == (3, "")
    assert re.findall("only in .*", done.stderr)[0] == ("only in gpus_per_node_3-peak_3e-3, gpus_per_node_3-peak_4e-3")
    right = workspace.trainwright("check", spec, "-s", "cluster.gpus_per_node=2")
    assert (right.returncode, right.stdout) == (0, f"{spec}: no mistake in the 2 members of the sweep\n")


def test_a_mistake_of_all_members_is_told_once(spec: str, workspace: Any) -> None:
    done = workspace.trainwright("check", spec, "-s", "run.sed=1", "-s", "cluster.gpus_per_node=1", "--json")
    (found,) = json.loads(done.stdout)
    assert (found["code"], found["members"]) == ("TW110", [])


def test_plan_puts_members_side_by_side_and_writes_each(spec: str, workspace: Any) -> None:
    done = workspace.trainwright("plan", spec, "-o", "plans")
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^(\d) +(gpus\S+) +(yes|no|–)", done.stdout, re.MULTILINE)
    assert [index for index, _, _ in rows] == ["0", "1", "2", "3", "4", "5"]
    assert [fits for _, _, fits in rows[4:]] == ["no", "no"]
    assert "4 does not fit: " in done.stdout
    written = sorted(path.stem for path in (workspace.folder / "plans").iterdir())
    assert written == sorted(f"tiny-{name}" for _, name, fits in rows if fits != "no")
    plan = decode((workspace.folder / "plans" / f"{written[0]}.json").read_bytes())
    assert (plan.name, plan.root) == (written[0], "../examples")


def test_plan_as_json_is_a_list(spec: str, workspace: Any) -> None:
    members = json.loads(workspace.trainwright("plan", spec, "--json").stdout)
    assert [member["index"] for member in members] == list(range(6))
    assert members[1]["values"] == {"cluster.gpus_per_node": "1", "phases.short.learning_rate.peak": "4e-3"}
    assert members[1]["plan"]["name"] == members[1]["member"]
    assert members[5]["plan"] is None
    assert {found["severity"] for found in members[5]["diagnostics"]} >= {"error"}


def test_a_sweep_of_which_nothing_fits_is_infeasible(spec: str, workspace: Any) -> None:
    assert workspace.trainwright("plan", spec, "-s", "cluster.gpus_per_node=3").returncode == 3


@pytest.mark.parametrize("verb", ["show", "graph", "run"])
def test_other_verbs_ask_for_one_member(verb: str, spec: str, workspace: Any) -> None:
    done = workspace.trainwright(verb, spec)
    assert done.returncode == 2
    assert "this spec is a sweep of 6" in done.stderr
    assert "--only gpus_per_node_1-peak_3e-3" in done.stderr
    assert not (workspace.folder / "runs").exists()


def test_one_member_is_a_spec_like_any_other(spec: str, workspace: Any) -> None:
    shown = workspace.trainwright("show", spec, "--only", "3").stdout
    assert 'name = "tiny-gpus_per_node_2-peak_4e-3"' in shown
    assert re.search(r"gpus_per_node = 2 +# matrix\[0\] examples/sweep.toml:4", shown)
    assert workspace.trainwright("graph", spec, "--only", "gpus_per_node_1-peak_4e-3").returncode == 0
    done = workspace.trainwright("plan", spec, "--only", "0", "-o", "one.json")
    assert done.returncode == 0
    assert (workspace.folder / "one.json").is_file()


@pytest.mark.parametrize("arguments", [("-o", "plan.json"), ("--only", "seven"), ("--stage", "short")])
def test_what_needs_one_plan_says_so(arguments: tuple[str, ...], spec: str, workspace: Any) -> None:
    done = workspace.trainwright("plan", spec, *arguments)
    assert done.returncode == 2
    assert "--only" in done.stderr
    assert not Path(workspace.folder, "plan.json").exists()


def test_the_example_is_planned_as_its_comments_say(workspace: Any) -> None:
    members = json.loads(workspace.trainwright("plan", "examples/sweeps/cards.toml", "--json").stdout)
    assert [member["member"] for member in members] == [
        f"internlm2-7b-gpu_{gpu}-zero_group_{group}" for gpu in ("a800-80gb", "h100") for group in (8, 64)
    ]
    sizes = [member["plan"]["stages"][3]["layout"]["micro_batch"] for member in members if member["plan"]]
    assert set(sizes) == {1}
