"""A run from end to end on a micro model: reuse, staleness, interruption, death, the lock, and several processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = pytest.mark.slow

STAGES = ["ingest", "tokenizer", "tokenize", "first", "second", "evaluate.second", "export.second"]
STEPS = 12 + 4


def events(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]


def happened(run: Path, event: str) -> list[str]:
    """The stages with that event since the run was last started."""
    rows = events(run)
    start = max(i for i, row in enumerate(rows) if row["event"] == "run_started")
    return [row["stage"] for row in rows[start:] if row["event"] == event]


def losses(run: Path) -> list[float]:
    return [json.loads(line)["train/loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def copy(micro: Any, tmp_path: Path) -> Any:
    """The micro workspace, with its run, as a copy that a test may change; `training.toml` ends with the training."""
    shutil.copytree(micro.folder, tmp_path / "work", symlinks=True)
    made = type(micro)(tmp_path / "work")
    training, _ = (made.folder / "micro.toml").read_text().split("[[evaluation]]")
    (made.folder / "training.toml").write_text(training)
    return made


@contextmanager
def started(workspace: Any, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """`trainwright run` in the background; nothing of it is left behind."""
    process = subprocess.Popen(
        [sys.executable, "-m", "trainwright", "run", "training.toml", "-y", "-q", *arguments],
        cwd=workspace.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        yield process
    finally:
        for child in [*psutil.Process(process.pid).children(recursive=True)] if process.poll() is None else []:
            child.kill()
        process.kill()
        process.wait()


def wait_for(condition: Any, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def wait_for_step(run: Path, phase: str, step: int) -> None:
    def reached() -> bool:
        path = run / "stages" / phase / "metrics.jsonl"
        return path.exists() and len(path.read_text().splitlines()) >= step

    wait_for(reached)


def test_a_run_leaves_every_document_a_user_looks_for(micro: Any) -> None:
    run = micro.folder / "runs" / "micro"
    documents = "spec.toml resolved.toml plan.json lineage.json events.jsonl metrics.jsonl report.html"
    for name in documents.split():
        assert (run / name).stat().st_size > 0, name
    assert happened(run, "stage_done") == STAGES
    assert len(losses(run)) == STEPS
    checkpoint = run / "stages" / "first" / "checkpoints" / "iter_0000012"
    for name in ("COMPLETE", "train_state.json", "resolved.toml", "lineage.json", "tokenizer/tokenizer.model"):
        assert (checkpoint / name).exists(), name
    assert (run / "stages" / "export.second" / "huggingface" / "model.safetensors").exists()


def test_training_learns(micro: Any) -> None:
    values = losses(micro.folder / "runs" / "micro")
    assert values[11] < values[0] - 0.2


def test_a_second_run_does_nothing(copy: Any) -> None:
    done = copy.trainwright("run", "micro.toml", "-y", "-q")
    assert done.returncode == 0, done.stderr
    run = copy.folder / "runs" / "micro"
    assert happened(run, "stage_done") == []
    assert happened(run, "stage_reused") == STAGES
    assert copy.trainwright("plan", "micro.toml", "--detailed-exitcode").returncode == 0


def test_a_changed_value_runs_again_only_what_depends_on_it_and_plan_says_why(copy: Any) -> None:
    change = ("-s", "phases.second.rope_base=500_000")
    planned = copy.trainwright("plan", "micro.toml", *change, "--detailed-exitcode")
    assert planned.returncode == 10, planned.stderr
    assert "rope_base" in planned.stdout
    done = copy.trainwright("run", "micro.toml", "-y", "-q", *change, timeout=300)
    assert done.returncode == 0, done.stderr
    run = copy.folder / "runs" / "micro"
    assert happened(run, "stage_reused") == ["ingest", "tokenizer", "tokenize", "first"]
    assert happened(run, "stage_done") == ["second", "evaluate.second", "export.second"]
    # Going back finds the earlier results again.
    copy.trainwright("run", "micro.toml", "-y", "-q")
    assert happened(run, "stage_reused") == STAGES


def test_a_layout_is_not_part_of_a_result(copy: Any) -> None:
    two = ("-s", "cluster.gpus_per_node=2", "-s", "topology.tensor=2")
    assert copy.trainwright("plan", "micro.toml", *two, "--detailed-exitcode").returncode == 0


def test_killed_at_any_moment_it_goes_on_and_computes_the_same_losses(micro: Any, copy: Any) -> None:
    run = copy.folder / "runs" / "killed"
    with started(copy, "-s", "run.name=killed") as process:
        wait_for_step(run, "first", 6)
        process.send_signal(signal.SIGKILL)
        process.wait()
    wait_for(lambda: not any("killed" in " ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"])))
    done = copy.trainwright("run", "training.toml", "-y", "-q", "-s", "run.name=killed", timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert happened(run, "stage_reused") == ["ingest", "tokenizer", "tokenize"]
    assert losses(run) == losses(micro.folder / "runs" / "micro")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_asks_to_be_queued_again(micro: Any, copy: Any, number: signal.Signals) -> None:
    run = copy.folder / "runs" / "stopped"
    with started(copy, "-s", "run.name=stopped", "-s", "run.checkpoint.every=1000 steps") as process:
        wait_for_step(run, "first", 2)
        process.send_signal(number)
        assert process.wait(300) == 75
    assert happened(run, "stage_interrupted") == ["first"]
    assert int((run / "stages" / "first" / "checkpoints" / "latest_checkpointed_iteration.txt").read_text()) >= 2
    if number == signal.SIGTERM:  # what was saved is the same whichever signal asked for it
        done = copy.trainwright("resume", "runs/stopped", timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        assert losses(run) == losses(micro.folder / "runs" / "micro")


def test_a_running_run_holds_its_folder(copy: Any) -> None:
    run = copy.folder / "runs" / "held"
    with started(copy, "-s", "run.name=held"):
        wait_for(lambda: (run / "plan.json").exists())
        second = copy.trainwright("run", "training.toml", "-y", "-q", "-s", "run.name=held")
        assert second.returncode == 4
        assert "is being run by process" in second.stdout + second.stderr


def test_two_tensor_ranks_give_the_losses_of_one(micro: Any, copy: Any) -> None:
    names = ("-s", "run.name=two", "-s", "cluster.gpus_per_node=2", "-s", "topology.tensor=2")
    done = copy.trainwright("run", "training.toml", "-y", "-q", *names, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert losses(copy.folder / "runs" / "two") == pytest.approx(losses(micro.folder / "runs" / "micro"), rel=1e-5)


def test_a_plan_whose_text_changed_is_stale(copy: Any) -> None:
    corpus = copy.folder / "mine.txt"
    corpus.write_text("Some text of my own.\n" * 2000)
    sets = ("-s", "data.sources.novels.path=mine.txt", "-s", "run.name=stale")
    planned = copy.trainwright("plan", "micro.toml", *sets, "-o", "plan.json")
    assert planned.returncode == 0, planned.stderr
    corpus.write_text("Other text of my own.\n" * 2000)
    done = copy.trainwright("run", "plan.json")
    assert done.returncode == 4
    assert "changed since the plan was made" in done.stderr


def test_a_failed_stage_is_told_in_one_sentence_and_the_report_is_written(copy: Any) -> None:
    done = copy.trainwright("run", "micro.toml", "-y", "-q", "-s", "run.name=small", "-s", "model.vocab_size=16384")
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert "stage `tokenizer`" in done.stdout
    assert (copy.folder / "runs" / "small" / "report.html").exists()


def test_sample_writes_the_prompt_and_goes_on(micro: Any) -> None:
    done = micro.trainwright("sample", "runs/micro", "The ", "--max-tokens", "8", "--temperature", "0")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("The ")
    assert len(done.stdout) > len("The \n")


def test_status_says_what_is_done(micro: Any) -> None:
    rows = json.loads(micro.trainwright("status", "runs/micro", "--json").stdout)
    assert [(row["stage"], row["state"]) for row in rows] == [(stage, "done") for stage in STAGES]
