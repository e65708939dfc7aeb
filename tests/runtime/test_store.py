"""Results are found by content, links follow the newest plan, and one run at a time holds a folder."""

import multiprocessing
import os
import signal
from pathlib import Path

import msgspec
import pytest

from trainwright.runtime.store import RunLocked, Store, locked, write_atomically
from trainwright.spec.plan import Hardware, Plan, TokenizeStage, fingerprint


def plan_with(vocab_size: int) -> Plan:
    stage = TokenizeStage(name="tokenize", needs=(), sources=("a",), vocab_size=vocab_size, workers=1)
    stage = msgspec.structs.replace(stage, fingerprint=fingerprint(stage, {}))
    return Plan(
        version=1,
        compiler="test",
        name="test",
        root=".",
        flops_convention="",
        hardware=Hardware(
            name="cpu",
            device="cpu",
            nodes=1,
            gpus_per_node=1,
            memory_bytes=None,
            peak_flops=None,
            price_per_gpu_hour=None,
        ),
        stages=(stage,),
        estimates=(),
        assumptions=(),
        notices=(),
    )


def finish(store: Store) -> None:
    stage = store.plan.stages[0]
    started = store.begin(stage)
    (store.path(stage) / "counts.json").write_text("{}")
    store.finish(stage, started, {"tokens": 5})


def test_a_result_is_found_again_only_under_the_same_fingerprint(tmp_path: Path) -> None:
    first, second = Store(tmp_path, plan_with(100)), Store(tmp_path, plan_with(200))
    finish(first)
    found = first.result(first.plan.stages[0])
    assert found is not None
    assert found.summary == {"tokens": 5}
    assert found.outputs["counts.json"] == "counts.json"
    assert second.result(second.plan.stages[0]) is None


def test_going_back_to_an_old_value_finds_its_result_again(tmp_path: Path) -> None:
    first, second = Store(tmp_path, plan_with(100)), Store(tmp_path, plan_with(200))
    finish(first)
    finish(second)
    link = tmp_path / "stages" / "tokenize"
    assert link.resolve() == second.path(second.plan.stages[0])
    first.link(first.plan.stages[0])
    assert link.resolve() == first.path(first.plan.stages[0])
    assert first.result(first.plan.stages[0]) is not None


def test_a_stage_that_did_not_finish_starts_in_an_empty_folder(tmp_path: Path) -> None:
    store = Store(tmp_path, plan_with(100))
    stage = store.plan.stages[0]
    store.begin(stage)
    (store.path(stage) / "half-written").touch()
    assert store.result(stage) is None
    store.begin(stage)
    assert not (store.path(stage) / "half-written").exists()


def test_the_lock_keeps_a_second_run_out_and_names_the_holder(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(RunLocked, match=f"process {os.getpid()} on"), locked(tmp_path):
        pass


def _hold_for_ever(folder: Path, ready: "multiprocessing.synchronize.Event") -> None:
    with locked(folder):
        ready.set()
        signal.pause()


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    holder = context.Process(target=_hold_for_ever, args=(tmp_path, ready))
    holder.start()
    assert ready.wait(30)
    with pytest.raises(RunLocked), locked(tmp_path):
        pass
    holder.kill()
    holder.join()
    with locked(tmp_path):
        pass


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_atomically(path, b"old")
    with pytest.raises(TypeError):
        write_atomically(path, "not bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.json"]
