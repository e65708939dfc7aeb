"""The trace of planned steps: valid by the Trace Event Format, complete, and written by `plan --trace`."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.compiler.support import compile_fragment, write_spec

from trainwright.cli import main
from trainwright.compiler.chrome_trace import chrome_trace
from trainwright.spec.plan import Estimate, Plan, encode

SPEC = (
    '[run]\nname = "base"\nprecision = "bf16"\n'
    '[cluster]\nnodes = 1\ngpus_per_node = 4\ngpu = "a100-80gb"\n'
    "[topology]\npipeline = 2\nvirtual_pipeline = 2\nmicro_batch = 2\n"
)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    _, compiled = compile_fragment(tmp_path_factory.mktemp("spec"), SPEC)
    assert compiled.plan is not None, compiled.diagnostics
    return compiled.plan


@pytest.fixture(scope="module")
def events(plan: Plan) -> list[dict[str, Any]]:
    return list(chrome_trace(plan)["traceEvents"])


def of(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["ph"] == kind]


def test_events_have_what_the_format_asks_for(events: list[dict[str, Any]]) -> None:
    asked = {"X": {"name", "cat", "ph", "ts", "dur", "pid", "tid"}, "M": {"name", "ph", "pid", "args"},
             "C": {"name", "ph", "ts", "pid", "args"}}  # fmt: skip
    assert {event["ph"] for event in events} == set(asked)
    for event in events:
        assert asked[event["ph"]] <= set(event)
        assert event.get("ts", 0.0) >= 0
        assert event.get("dur", 1.0) > 0
    for event in of(events, "C"):
        assert all(isinstance(value, int) and value >= 0 for value in event["args"].values())


def test_each_rank_has_a_named_track_with_every_pass_once(events: list[dict[str, Any]], plan: Plan) -> None:
    phase: Any = plan.stage("short")
    named = {event["tid"]: event["args"]["name"] for event in of(events, "M") if event["name"] == "thread_name"}
    assert named == {0: "pp 0", 1: "pp 1"}
    for rank in named:
        passes = {
            (event["cat"], event["args"]["chunk"], event["args"]["micro_batch"])
            for event in of(events, "X")
            if event["tid"] == rank and "micro_batch" in event["args"]
        }
        count = phase.layout.micro_batches
        assert passes == {(kind, c, i) for kind in ("forward", "backward") for c in (0, 1) for i in range(count)}


def test_slices_of_a_track_do_not_overlap_and_end_with_the_step(events: list[dict[str, Any]], plan: Plan) -> None:
    estimate: Estimate = plan.estimates[0]
    assert estimate.step is not None
    for rank in (0, 1):
        slices = sorted((event["ts"], event["dur"], event["name"]) for event in of(events, "X") if event["tid"] == rank)
        for (start, duration, name), (following, _, next_name) in pairwise(slices):
            assert start + duration <= following + 0.002, (name, next_name)
        assert "optimizer" in {name for _, _, name in slices}
        assert slices[-1][0] + slices[-1][1] == pytest.approx(estimate.step.time_s * 1e6, rel=1e-3)


def test_memory_rises_to_what_is_planned_and_falls_to_the_states(events: list[dict[str, Any]], plan: Plan) -> None:
    for rank, memory in enumerate(plan.estimates[0].memory):
        values = [event["args"] for event in of(events, "C") if event["name"].startswith(f"memory pp {rank} ")]
        assert max(value["activations"] for value in values) == memory.activations_bytes
        assert values[-1]["activations"] == 0
        assert values[0]["states"] == memory.parameters_bytes + memory.gradients_bytes + memory.optimizer_bytes


def test_each_phase_is_a_process(tmp_path: Path) -> None:
    more = (
        '[[phases]]\nname = "one"\ntokens = "64Ki"\nsequence_length = 128\ntokens_per_step = "4Ki"\nmixture = "base"\n'
        'learning_rate = { peak = 1e-3 }\n[[phases]]\nname = "two"\ntokens = "32Ki"\nsequence_length = 256\n'
        'mixture = "base"\n'
    )
    _, compiled = compile_fragment(tmp_path, SPEC + more)
    assert compiled.plan is not None, compiled.diagnostics
    events = chrome_trace(compiled.plan)["traceEvents"]
    names = {event["pid"]: event["args"]["name"] for event in of(events, "M") if event["name"] == "process_name"}
    assert [name.split(":")[0] for name in names.values()] == ["one", "two"]
    assert set(names) == {event["pid"] for event in events} == {1, 2}


def test_plan_writes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "traces" / "plan.trace.json"
    command = ["plan", str(write_spec(tmp_path, SPEC)), "--runs", str(tmp_path / "runs"), "--trace", str(file)]
    assert main(command) == 0
    assert str(file) in capsys.readouterr().out
    assert json.loads(file.read_text())["traceEvents"]


def test_show_writes_it_of_a_plan_and_not_of_a_spec(tmp_path: Path, plan: Plan) -> None:
    file, trace = tmp_path / "plan.json", tmp_path / "plan.trace.json"
    file.write_bytes(encode(plan))
    assert main(["show", str(file), "--runs", str(tmp_path / "runs"), "--trace", str(trace)]) == 0
    assert json.loads(trace.read_text()) == chrome_trace(plan)
    assert main(["show", str(write_spec(tmp_path, SPEC)), "--trace", str(tmp_path / "other.json")]) == 2


def test_without_times_there_is_no_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "plan.trace.json"
    command = ["plan", str(write_spec(tmp_path)), "--runs", str(tmp_path / "runs"), "--trace", str(file)]
    assert main(command) == 1
    assert "no times to trace" in capsys.readouterr().err
    assert not file.exists()
