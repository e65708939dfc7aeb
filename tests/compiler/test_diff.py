"""What a change costs: by phase, in all, and in work that was done already."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.compiler.test_review import execute, plan_of

from trainwright.compiler.changes import Change
from trainwright.compiler.diff import Difference, Figure, Lost, diff_plans
from trainwright.compiler.present.diff import present_diff
from trainwright.spec.artefact import METRICS_FILE, step_times_s, store_folder
from trainwright.spec.plan import Plan, encode

PRICED = ("cluster.gpu='h100'", "run.precision='bf16'", "cluster.price_per_gpu_hour=2")


def figure(difference: Difference, stage: str, name: str) -> Figure:
    return next(each for each in difference.figures if (each.stage, each.name) == (stage, name))


def trained(run: Path, plan: Plan, milliseconds: list[float]) -> None:
    """The phase's folder holds these steps' rows."""
    folder = store_folder(run, plan.stage("short"))
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"step": number + 1, "perf/step_time_ms": took} for number, took in enumerate(milliseconds)]
    (folder / METRICS_FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_longer_phase_costs_time_and_money_and_is_trained_again(tmp_path: Path) -> None:
    old, new = plan_of(tmp_path, *PRICED), plan_of(tmp_path, *PRICED, "phases.short.tokens='128Ki'")
    difference = diff_plans(old, new)
    hours = figure(difference, "short", "GPU-hours")
    assert hours.old is not None
    assert hours.new is not None
    assert hours.new == pytest.approx(2 * hours.old, rel=0.01)  # one checkpoint at the end in either
    assert figure(difference, "", "GPU-hours to train again").new == pytest.approx(hours.new)
    assert figure(difference, "", "cost to train again").new == pytest.approx(2 * hours.new)
    assert not [each for each in difference.figures if each.stage == "short" and each.name in ("fullest rank", "step")]


def test_what_becomes_of_memory_stands_by_phase(tmp_path: Path) -> None:
    difference = diff_plans(plan_of(tmp_path), plan_of(tmp_path, "topology.recompute='full'"))
    memory = figure(difference, "short", "fullest rank")
    assert memory.old is not None
    assert memory.new is not None
    assert memory.new < memory.old
    assert figure(difference, "", "GPU-hours to train again").new == 0  # another layout: nothing is stale


def test_work_that_a_change_makes_useless_is_counted(tmp_path: Path) -> None:
    old, new = plan_of(tmp_path, *PRICED), plan_of(tmp_path, *PRICED, "optimizer.weight_decay=0.2")
    run = tmp_path / "run"
    assert diff_plans(old, new, run).lost == ()
    trained(run, old, [1_800_000.0, 1_800_000.0])
    assert diff_plans(old, new, run).lost == (Lost("short", 1.0, 2.0, 2),)
    assert diff_plans(old, old, run).lost == ()
    console = Console(width=100, record=True, file=io.StringIO())
    present_diff(diff_plans(old, new, run), console)
    assert "of no use to the newer plan: short: 1 GPU-hours, 2 steps, cost 2" in console.export_text()


def test_what_the_run_has_from_an_earlier_plan_is_not_trained_again(tmp_path: Path) -> None:
    old, new = plan_of(tmp_path, *PRICED), plan_of(tmp_path, *PRICED, "optimizer.weight_decay=0.2")
    assert (figure(diff_plans(old, new, tmp_path / "run"), "", "GPU-hours to train again").new or 0) > 0
    execute(new, tmp_path / "run")
    assert figure(diff_plans(old, new, tmp_path / "run"), "", "GPU-hours to train again").new == 0


def test_a_step_that_ran_twice_or_was_cut_short_counts_once_or_not(tmp_path: Path) -> None:
    rows = ['{"step": 1, "perf/step_time_ms": 5}', '{"step": 2, "perf/step_time_ms": 7}', '{"step": 2, "perf/step_ti']
    (tmp_path / METRICS_FILE).write_text('{"step": 2, "perf/step_time_ms": 100}\n' + "\n".join(rows))
    assert step_times_s(tmp_path) == [0.005, 0.007]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (Change("sources.novels.digest", "1f", "2f"), "the content of `novels` changed"),
        (Change("digest", "1f", "2f"), "the content of `path` changed"),
        (Change("revision", 1, 2), "trainwright computes it in another way now"),
        (Change("optimizer.clip", 1.0, 0.5), "optimizer.clip 1 -> 0.5"),
    ],
)
def test_a_change_is_said_in_words_of_the_spec(change: Change, said: str) -> None:
    assert str(change) == said


def test_a_runs_folder_stands_for_its_plan(workspace: Any, tmp_path: Path) -> None:
    plan = plan_of(workspace.folder)
    run = workspace.folder / "runs" / "base"
    execute(plan, run)
    trained(run, plan, [36_000.0])
    (run / "plan.json").write_bytes(encode(plan))
    done = workspace.trainwright("diff", "runs/base", "spec.toml", "-s", "optimizer.clip=0.5", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["lost"] == [{"stage": "short", "gpu_hours": 0.01, "cost": None, "steps": 1}]
