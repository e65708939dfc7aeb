"""Run, resume or reuse, and why; and what differs between two plans."""

import io
import os
from pathlib import Path

import msgspec
import pytest
from rich.console import Console
from tests.compiler.support import compile_fragment

from trainwright.compiler.changes import Change, changes
from trainwright.compiler.diff import diff_plans
from trainwright.compiler.present.diff import present_diff
from trainwright.compiler.present.document import plan_to_json
from trainwright.compiler.present.plan import present_plan
from trainwright.compiler.review import Verdict, review
from trainwright.spec.artefact import (
    CHECKPOINTS,
    IDENTITY_FILE,
    LATEST_CHECKPOINT_FILE,
    RESULT_FILE,
    StageResult,
    encode_result,
    needs_of,
    stage_link,
    store_folder,
)
from trainwright.spec.plan import Plan, Stage, identity

EXPORT = '[export]\nof = ["short"]\n'


def plan_of(folder: Path, *sets: str) -> Plan:
    _, compiled = compile_fragment(folder, EXPORT, *sets)
    assert compiled.plan is not None, compiled.diagnostics
    return compiled.plan


def execute(plan: Plan, run: Path, *names: str, finished: bool = True) -> None:
    """Leaves in the run's folder what the runtime leaves there."""
    for name in names or [stage.name for stage in plan.stages]:
        stage = plan.stage(name)
        folder = store_folder(run, stage)
        folder.mkdir(parents=True, exist_ok=True)
        result = StageResult(
            stage=name,
            fingerprint=stage.fingerprint,
            identity=identity(stage),
            needs=needs_of(plan, stage),
            started="2026-01-01T00:00:00Z",
        )
        (folder / IDENTITY_FILE).write_bytes(encode_result(result))
        if finished:
            done = msgspec.structs.replace(result, finished="2026-01-01T00:01:00Z")
            (folder / RESULT_FILE).write_bytes(encode_result(done))
        link(run, stage)


def link(run: Path, stage: Stage) -> None:
    path = stage_link(run, stage.name)
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(os.path.relpath(store_folder(run, stage), path.parent))


def verdict(plan: Plan, run: Path, name: str) -> Verdict:
    return next(each for each in review(plan, run) if each.stage == name)


def test_without_results_all_stages_run(tmp_path: Path) -> None:
    verdicts = review(plan_of(tmp_path), tmp_path / "run")
    assert {(each.action, each.reason) for each in verdicts} == {("run", "has no result yet")}


def test_a_second_time_all_results_are_reused(tmp_path: Path) -> None:
    plan, run = plan_of(tmp_path), tmp_path / "run"
    execute(plan, run)
    assert {each.action for each in review(plan, run)} == {"reuse"}


def test_a_changed_value_is_the_reason_and_passes_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    execute(plan_of(tmp_path), run)
    changed = plan_of(tmp_path, "optimizer.weight_decay=0.2")
    actions = {each.stage: each.action for each in review(changed, run)}
    assert [name for name, action in actions.items() if action == "run"] == ["short", "export.short"]
    assert verdict(changed, run, "short").reason == "optimizer.weight_decay 0.1 -> 0.2"
    assert verdict(changed, run, "export.short").reason == "needs `short`, which changes"


def test_a_layout_changes_no_result(tmp_path: Path) -> None:
    run = tmp_path / "run"
    execute(plan_of(tmp_path), run)
    other = plan_of(tmp_path, "cluster.gpus_per_node=2", "topology.tensor=2")
    assert {each.action for each in review(other, run)} == {"reuse"}


def test_an_earlier_plans_results_are_reused_when_it_returns(tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = plan_of(tmp_path)
    execute(first, run)
    execute(plan_of(tmp_path, "optimizer.weight_decay=0.2"), run)
    assert {each.action for each in review(first, run)} == {"reuse"}


def test_an_interrupted_phase_resumes_from_its_checkpoint(tmp_path: Path) -> None:
    plan, run = plan_of(tmp_path), tmp_path / "run"
    execute(plan, run, "ingest", "tokenizer", "tokenize")
    execute(plan, run, "short", finished=False)
    assert verdict(plan, run, "short").reason == "was interrupted before its first checkpoint"
    checkpoints = store_folder(run, plan.stage("short")) / CHECKPOINTS
    checkpoints.mkdir()
    (checkpoints / LATEST_CHECKPOINT_FILE).write_text("12\n")
    assert verdict(plan, run, "short") == Verdict("short", "resume", "stopped, checkpoint at step 12 of 16", 12)
    assert verdict(plan, run, "export.short").action == "run"


def test_a_damaged_result_is_made_again(tmp_path: Path) -> None:
    plan, run = plan_of(tmp_path), tmp_path / "run"
    execute(plan, run)
    (store_folder(run, plan.stage("ingest")) / RESULT_FILE).write_text("{")
    assert verdict(plan, run, "ingest").action == "run"


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ({"a": {"b": 1}}, {"a": {"b": 2}}, [Change("a.b", 1, 2)]),
        ({"a": 1}, {"b": 1}, [Change("a", 1, "(absent)"), Change("b", "(absent)", 1)]),
        ([{"name": "x", "v": 1}], [{"name": "y", "v": 0}, {"name": "x", "v": 2}],
         [Change("x.v", 1, 2), Change("y", "(absent)", {"name": "y", "v": 0})]),
        ({"a": [1, 2]}, {"a": [1, 2]}, []),
    ],
)  # fmt: skip
def test_changes_by_dotted_key(old: object, new: object, found: list[Change]) -> None:
    assert list(changes(old, new)) == found


def test_a_difference_names_values_stale_stages_and_figures(tmp_path: Path) -> None:
    old = plan_of(tmp_path)
    difference = diff_plans(old, plan_of(tmp_path, "model.ffn_size=256", "run.log_every=3"))
    states = {each.stage: each.state for each in difference.stages}
    assert states == {
        "ingest": "same",
        "tokenizer": "same",
        "tokenize": "same",
        "short": "stale",
        "export.short": "stale",
    }
    short = next(each for each in difference.stages if each.stage == "short")
    assert Change("model.ffn_size", 128, 256) in short.changes
    parameters = next(each for each in difference.figures if each.name == "parameters")
    assert parameters.new is not None
    assert parameters.old is not None
    assert parameters.new - parameters.old == 4 * 3 * 64 * 128
    assert diff_plans(old, old).empty


def test_only_another_layout_makes_nothing_stale(tmp_path: Path) -> None:
    difference = diff_plans(plan_of(tmp_path), plan_of(tmp_path, "topology.recompute='full'"))
    assert {each.state for each in difference.stages} == {"same", "moved"}


def test_tables_fit_a_hundred_columns_and_mark_what_is_estimated(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "cluster.gpu='h100'", "run.precision='bf16'", "cluster.price_per_gpu_hour=2")
    console = Console(width=100, record=True, file=io.StringIO())
    present_plan(plan, review(plan, tmp_path / "run"), console)
    present_diff(diff_plans(plan, plan_of(tmp_path)), console)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    for said in ("213,568 parameters", "costs  ~", "Plan: 5 to run.", plan.flops_convention[:40]):
        assert said in text


def test_json_holds_the_plan_and_what_would_be_done(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    document = plan_to_json(plan, review(plan, tmp_path / "run"))
    assert document["name"] == "base"
    assert document["verdicts"][0] == {
        "stage": "ingest",
        "action": "run",
        "reason": "has no result yet",
        "step": None,
    }
