"""What a run's folder is read as, whatever is missing from it or broken in it."""

import fcntl
import json
import subprocess
import sys
from pathlib import Path

import pytest

from trainwright.runtime.report.gather import NoRun, gather
from trainwright.runtime.report.plain import plain


def states(run) -> dict[str, str]:
    return {stage.name: stage.state for stage in gather(run.folder).stages}


def test_a_folder_without_a_plan_is_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(NoRun, match=r"is not a run: there is no plan\.json in it"):
        gather(tmp_path)
    (tmp_path / "plan.json").write_text('{"version": "x"}')
    with pytest.raises(NoRun, match="is not a plan of this version"):
        gather(tmp_path)


def test_a_run_that_was_only_planned_waits(run) -> None:
    facts = gather(run.folder)
    assert facts.state == "waiting"
    assert set(states(run).values()) == {"waiting"}
    assert (facts.attempts, facts.started, facts.wall_s, facts.scores, facts.broken) == (0, None, None, (), ())


def test_a_finished_run(run) -> None:
    run.all_stages()
    facts = gather(run.folder)
    assert facts.state == "done"
    assert set(states(run).values()) == {"done"}
    assert facts.wall_s == 92
    assert [len(curve.rows) for curve in facts.curves] == [120, 16, 8]
    novels = facts.sources[0]
    assert (novels.documents, novels.duplicates, novels.held_out, novels.rejected) == (1200, 7, 60, 2)
    assert novels.bytes_per_token == pytest.approx(2_280_000 / 700_000)
    assert facts.samples[1].text.startswith("眠不觉晓")


def test_a_second_run_reuses_what_is_done(run) -> None:
    run.all_stages()
    run.event("run_started", 200)
    for stage in run.plan.stages:
        run.event("stage_reused", 201, stage=stage.name)
    run.event("run_ended", 202, exit_code=0)
    facts = gather(run.folder)
    assert set(states(run).values()) == {"reused"}
    assert (facts.state, facts.attempts, facts.wall_s) == ("done", 2, 94)


def test_a_failure_tells_its_cause_first_and_once_for_all_ranks_that_say_it(run) -> None:
    run.event("run_started", 0)
    run.data_stages()
    run.begin("short")
    run.metrics("short", 57)
    trace = "Traceback (most recent call last):\nValueError: no\n"
    run.log("short", ["step=56", "step=57", *trace.splitlines()])
    for rank in (1, 0):
        run.event("worker_failed", 3, level="error", stage="short", rank=rank, error="ValueError: no", traceback=trace)
    run.event("stage_failed", 4, level="error", stage="short", error="ValueError: no (rank 1; see rank_00001.log)")
    run.event("stage_failed", 5, level="error", stage="short", error="disk full")
    run.event("run_ended", 4, exit_code=1)
    facts = gather(run.folder)
    assert (facts.state, facts.exit_code) == ("failed", 1)
    assert states(run)["short"] == "failed"
    assert facts.stage("short").note == "step 57 of 120, no checkpoint yet"
    assert [(trouble.what, trouble.ranks) for trouble in facts.troubles] == [
        ("ValueError: no", (1, 0)),
        ("disk full", ()),
    ]
    assert facts.log_tails[0].lines == ("step=56", "step=57")
    assert facts.log_tails[0].path.endswith("logs/rank_00000.log")


def test_failures_of_earlier_attempts_are_forgotten(run) -> None:
    run.event("run_started", 0)
    run.event("stage_failed", 1, level="error", stage="ingest", error="disk full")
    run.event("run_started", 10)
    run.data_stages()
    facts = gather(run.folder)
    assert facts.troubles == ()
    assert facts.state == "interrupted"


def test_an_interrupted_phase_says_where_it_goes_on(run) -> None:
    run.event("run_started", 0)
    run.begin("short")
    run.metrics("short", 70)
    (run.path("short") / "checkpoints").mkdir()
    (run.path("short") / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("50\n")
    assert gather(run.folder).stage("short").note.startswith("killed: ")  # nothing says how it ended
    run.event("stage_interrupted", 9, level="warning", stage="short", saved=True)
    run.event("run_ended", 9, exit_code=75)
    short = gather(run.folder).stage("short")
    assert short.state == "interrupted"
    assert short.note == "asked to stop; step 70 of 120, newest checkpoint at step 50"


def test_a_run_whose_lock_is_held_is_running(run) -> None:
    run.event("run_started", 0)
    run.begin("ingest")
    with open(run.folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert gather(run.folder).state == "running"
        assert states(run)["ingest"] == "running"
    assert states(run)["ingest"] == "interrupted"


def test_a_step_that_was_run_twice_counts_the_second_time(run) -> None:
    run.begin("short")
    path = run.path("short") / "metrics.jsonl"
    path.write_text('{"step": 1, "train/loss": 6}\n{"step": 2, "train/loss": 5}\n{"step": 2, "train/loss": 4}\n')
    curve = gather(run.folder).curves[0]
    assert curve.values("train/loss") == [(1, 6.0), (2, 4.0)]


def test_a_line_cut_off_by_a_kill_does_not_count(run) -> None:
    run.begin("short")
    (run.path("short") / "metrics.jsonl").write_text('{"step": 1, "train/loss": 6}\n{"step": 2, "tra')
    facts = gather(run.folder)
    assert len(facts.curves[0].rows) == 1
    assert facts.broken == ()


def test_a_loss_that_blows_up_is_told_and_not_drawn(run) -> None:
    run.begin("short")
    path = run.path("short") / "metrics.jsonl"
    path.write_text(
        '{"step": 1, "train/loss": 4}\n{"step": 2, "train/loss": NaN}\n{"step": 3, "train/loss": Infinity}\n'
    )
    facts = gather(run.folder)
    assert facts.curves[0].values("train/loss") == [(1, 4.0)]
    assert "the loss is not finite from step 2 on" in facts.stage("short").note


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("events.jsonl", '{"ts": 1}\nnonsense\n', "`events.jsonl` cannot be read: line 2: Expecting value"),
        ("lineage.json", "[1]", "`lineage.json` cannot be read: Expected `object`, got `array`"),
        (
            "stages/evaluate-short/scores.json",
            '{"novels": {}}',
            "scores.json` cannot be read: 'bits_per_byte' is missing",
        ),
        ("stages/evaluate-short/samples.json", "{}", "samples.json` cannot be read: 'samples' is missing"),
        ("stages/ingest/result.json", "{}", "result.json` cannot be read: Object missing required field `stage`"),
        ("stages/tokenize/counts.json", '{"novels": 3}', "is told"),
    ],
)
def test_a_broken_file_is_told_and_the_rest_is_read(run, name: str, text: str, sentence: str) -> None:
    run.all_stages()
    (run.folder / name).write_text(text)
    facts = gather(run.folder)
    assert len(facts.curves[0].rows) == 120
    if sentence != "is told":
        assert sentence in facts.broken[0]
    assert facts.broken


def figures(run) -> dict[tuple[str, str], dict[str, object]]:
    return {(row["stage"], row["figure"]): row for row in plain(gather(run.folder))["planned_beside_measured"]}


def test_plain_data_is_json_and_leaves_out_what_files_hold_better(run) -> None:
    run.all_stages()
    data = json.loads(json.dumps(plain(gather(run.folder))))
    assert data["curves"][0]["last"]["step"] == 120
    assert "plan" not in data


def test_planned_stands_beside_measured(run) -> None:
    run.all_stages()
    rows = figures(run)
    assert rows["short", "step time"] == {
        "stage": "short",
        "figure": "step time",
        "planned": 120.0,
        "measured": 100.0,
        "error_pct": pytest.approx(20.0),
        "between": (110.0, 140.0),
        "inside": False,
    }
    assert rows["enhance", "step time"]["planned"] is None
    assert rows["short", "tokens/s"]["measured"] == pytest.approx(2 * (20_000 - 8000 / 60.5), rel=1e-4)


def test_memory_and_time_are_compared_by_kind_where_they_were_measured(run) -> None:
    run.all_stages()
    rows = figures(run)
    assert rows["short", "memory a rank"]["planned"] == 49_893_120
    assert rows["short", "memory a rank"]["error_pct"] == pytest.approx((49_893_120 / 50e6 - 1) * 100)
    assert rows["short", "in it: the step"]["planned"] == 48_000_000
    assert rows["short", "in it: the step"]["measured"] == pytest.approx(47e6)
    assert rows["short", "in it: products"]["planned"] == pytest.approx(80.0)
    assert rows["short", "in it: products"]["measured"] == 70.0
    assert rows["short", "in it: the rest"]["measured"] == 20.0
    assert rows["short", "resident memory"]["planned"] is None
    assert ("enhance", "in it: products") not in rows  # nothing was planned of it


def test_the_interval_says_inside_or_outside(run) -> None:
    run.all_stages()
    assert figures(run)["long", "time of all steps"]["inside"] is False
    slow = [{**row, "perf/step_time_ms": 125.0} for row in gather(run.folder).curves[1].rows]
    text = "".join(json.dumps(row) + "\n" for row in slow)
    (run.path("long") / "metrics.jsonl").write_text(text)
    assert figures(run)["long", "time of all steps"]["inside"] is True


def test_a_phase_that_is_not_done_is_not_blamed_for_its_missing_steps(run) -> None:
    run.begin("short")
    run.metrics("short", 57)
    rows = figures(run)
    assert (rows["short", "steps"]["measured"], rows["short", "steps"]["error_pct"]) == (57, None)
    assert rows["short", "step time"]["error_pct"] == pytest.approx(20.0)


def test_reading_a_run_needs_no_torch() -> None:
    code = "import sys, trainwright.runtime.report.gather; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
