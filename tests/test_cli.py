"""The command line: exit codes, what goes to which stream, machine output, and a start without torch."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from trainwright.cli import _parser
from trainwright.spec.plan import decode

BROKEN = Path(__file__).parents[1] / "docs" / "pictures" / "broken.toml"
VERBS = {
    "init", "check", "show", "graph", "plan", "diff", "explain", "schema",
    "run", "resume", "cancel", "status", "report", "sample", "calibrate", "kernels", "doctor",
}  # fmt: skip


def test_the_verbs_are_these_and_no_others() -> None:
    (verbs,) = (action.choices for action in _parser()._actions if isinstance(action.choices, dict))
    assert set(verbs) == VERBS


def test_a_right_spec_is_0_and_says_how_big_it_is(workspace: Any) -> None:
    done = workspace.trainwright("check", "examples/internlm2-7b.toml")
    assert (done.returncode, done.stderr) == (0, "")
    assert "7,737,708,544 parameters" in done.stdout


@pytest.mark.parametrize(
    ("size", "parameters"), [("1.8b", "1,889,110,016"), ("7b", "7,737,708,544"), ("20b", "19,861,149,696")]
)
def test_the_published_sizes_have_exactly_their_parameters(size: str, parameters: str, workspace: Any) -> None:
    assert f"{parameters} parameters" in workspace.trainwright("check", f"examples/internlm2-{size}.toml").stdout


def test_a_wrong_spec_is_2_with_every_mistake_on_stderr(workspace: Any) -> None:
    done = workspace.trainwright("check", str(BROKEN))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("error[TW") == 4
    assert "broken.toml:14:10" in done.stderr
    assert "\x1b[" not in done.stderr


def test_an_infeasible_spec_is_3(workspace: Any) -> None:
    done = workspace.trainwright(
        "check", "examples/internlm2-20b.toml", "-s", "cluster.nodes=1", "-s", "topology.data=4"
    )
    assert done.returncode in (2, 3)
    done = workspace.trainwright("plan", "examples/internlm2-7b.toml", "-s", "budget.max_cost=10")
    assert done.returncode == 3
    assert "Traceback" not in done.stderr


def test_json_is_all_that_stands_on_stdout(workspace: Any) -> None:
    done = workspace.trainwright("check", str(BROKEN), "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, done.stderr, len(found)) == (2, "", 4)
    assert {"code", "message", "severity", "span"} <= set(found[0])
    planned = json.loads(workspace.trainwright("plan", "examples/tiny.toml", "--json").stdout)
    assert planned


def test_github_annotations_name_file_line_and_column(workspace: Any) -> None:
    done = workspace.trainwright("check", str(BROKEN), "--format", "github")
    assert done.returncode == 2
    assert [
        line
        for line in done.stdout.splitlines()
        if line.startswith("::error file=") and "line=14," in line and "col=10," in line
    ]


def test_a_plan_is_the_same_bytes_from_anywhere_and_runs_from_there(workspace: Any, tmp_path: Path) -> None:
    first, second = workspace.folder / "plan.json", workspace.folder / "sub" / "plan.json"
    assert workspace.trainwright("plan", "examples/tiny.toml", "-o", "plan.json").returncode == 0
    assert workspace.trainwright("plan", "examples/tiny.toml", "-o", "sub/plan.json").returncode == 0
    here, there = decode(first.read_bytes()), decode(second.read_bytes())
    assert (here.root, there.root) == ("examples", "../examples")
    assert msgspec.structs.replace(there, root=here.root) == here
    shown = workspace.trainwright("show", "plan.json")
    assert shown.returncode == 0
    assert "3,147,456 parameters" in shown.stdout


def test_what_is_shown_is_a_spec_again(workspace: Any) -> None:
    shown = workspace.trainwright("show", "examples/internlm2-1.8b.toml").stdout
    assert tomllib.loads(shown)["model"]["layers"] == 24
    assert "# preset:internlm2-1.8b" in shown


def test_overrides_come_from_the_environment_and_the_command_line(workspace: Any) -> None:
    shown = workspace.trainwright(
        "show", "examples/tiny.toml", "-s", "run.log_every=3", TRAINWRIGHT_SET__run__seed="7"
    ).stdout
    document = tomllib.loads(shown)
    assert (document["run"]["seed"], document["run"]["log_every"]) == (7, 3)
    assert "# TRAINWRIGHT_SET__run__seed" in shown
    assert "# -s run.log_every=3" in shown


def test_diff_names_what_changed_and_what_becomes_stale(workspace: Any) -> None:
    workspace.trainwright("plan", "examples/tiny.toml", "-o", "old.json")
    workspace.trainwright("plan", "examples/tiny.toml", "-s", "phases.long.rope_base=5e5", "-o", "new.json")
    done = workspace.trainwright("diff", "old.json", "new.json", "--json")
    stale = {row["stage"]: row["state"] for row in json.loads(done.stdout)["stages"]}
    fresh = {"ingest", "tokenizer", "tokenize", "conversations", "short", "evaluate.short"}
    assert {name for name, state in stale.items() if state != "stale"} == fresh
    assert {"long", "sft", "reward@1", "ppo@2", "export.enhance"} < stale.keys() - fresh


def test_explain_prints_a_page_and_the_list(workspace: Any) -> None:
    assert "TW110" in workspace.trainwright("explain", "TW110").stdout
    listed = workspace.trainwright("explain").stdout.splitlines()
    assert len(listed) > 50
    done = workspace.trainwright("explain", "TW999")
    assert (done.returncode, done.stdout) == (2, "")


def test_init_writes_a_spec_and_never_over_one(workspace: Any) -> None:
    assert workspace.trainwright("init", "mine").returncode == 0
    written = (workspace.folder / "mine.toml").read_text()
    assert written.startswith("#:schema ")
    assert workspace.trainwright("init", "mine").returncode == 2
    assert (workspace.folder / "mine.toml").read_text() == written


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "nowhere.toml"),
        ("plan", "examples"),
        ("show", "nowhere.json"),
        ("run", "nowhere.json"),
        ("status", "runs/nowhere"),
        ("report", "runs/nowhere"),
        ("sample", "runs/nowhere", "x"),
        ("diff", "examples/tiny.toml", "nowhere.toml"),
        ("init", "mine", "--preset", "gpt-9"),
        ("schema", "--field", "run.nothing"),
    ],
)
def test_what_is_not_there_is_told_in_a_sentence(arguments: tuple[str, ...], workspace: Any) -> None:
    done = workspace.trainwright(*arguments)
    assert done.returncode == 2
    assert "error" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_asks_first_and_no_answer_is_no(workspace: Any) -> None:
    done = workspace.trainwright("run", "examples/tiny.toml")
    assert done.returncode == 1
    assert "Proceed? [y/N]" in done.stdout
    assert not (workspace.folder / "runs").exists()


def test_a_plan_that_cannot_be_executed_yet_is_refused_with_the_reason(workspace: Any) -> None:
    done = workspace.trainwright("run", "examples/internlm2-7b.toml", "-y", "-q", "-s", "topology.zero=3")
    assert done.returncode == 3
    assert "topology.zero" in done.stderr
    assert not (workspace.folder / "runs").exists()


@pytest.mark.parametrize(
    ("example", "sets", "reason"),
    [
        ("internlm2-7b", {}, "the plan is for 128 nodes"),
        ("tiny", {"cluster.gpu": "h100", "cluster.gpus_per_node": "4"}, "the plan is for 4 x `h100`"),
    ],
)
def test_a_plan_for_devices_that_are_not_here_is_refused_before_anything_runs(
    workspace: Any, example: str, sets: dict[str, str], reason: str
) -> None:
    limits = {"budget.deadline": "10000d", "budget.max_cost": "1e12", "cluster.price_per_gpu_hour": "1"}
    options = [part for key, value in (limits | sets).items() for part in ("-s", f"{key}={value}")]
    done = workspace.trainwright("run", f"examples/{example}.toml", "-y", "-q", *options)
    assert done.returncode == 3
    assert reason in done.stderr
    assert not (workspace.folder / "runs").exists()


@pytest.mark.parametrize("verb", ["check", "plan", "show", "graph"])
def test_the_compiler_starts_without_torch_and_numpy(verb: str) -> None:
    program = (
        "import sys; from trainwright.cli import main\n"
        f"code = main(['{verb}', 'examples/internlm2-7b.toml'])\n"
        "assert code == 0\n"
        "heavy = {'torch', 'numpy', 'megatron', 'sentencepiece', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, cwd=BROKEN.parents[2])
