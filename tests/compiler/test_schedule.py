"""Pipeline schedules: closed forms, what each pass waits for, and Megatron-core's and PyTorch's own orders."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from trainwright.compiler.cost import schedule as module
from trainwright.compiler.cost.activations import passes_in_flight
from trainwright.compiler.cost.case import Case, ModelShape
from trainwright.compiler.cost.orders import SCHEDULES, in_flight, order, part_of, warmup
from trainwright.compiler.cost.schedule import Task, Timeline, timeline
from trainwright.spec.plan import ChunkTime

ROOT = Path(__file__).parents[2]


def chunk_times(
    pipeline: int, chunks: int = 1, forward: float = 1.0, backward: float = 2.0, weight: float = 1.0, head: float = 0.0
) -> list[ChunkTime]:
    """Equal chunks, the last with `head` more in its forward and twice that in its backward pass."""
    times = []
    for rank in range(pipeline):
        for chunk in range(chunks):
            more = head if rank == pipeline - 1 and chunk == chunks - 1 else 0.0
            times.append(
                ChunkTime(
                    pipeline_rank=rank,
                    chunk=chunk,
                    forward_s=forward / chunks + more,
                    backward_s=backward / chunks + 2 * more,
                    weight_s=weight / chunks,
                )
            )
    return times


def chunks_of(schedule: str) -> int:
    return 2 if schedule in ("interleaved", "zb-v") else 1


# --- closed forms ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b"])
@pytest.mark.parametrize(("pipeline", "micro_batches"), [(1, 4), (2, 4), (4, 8), (8, 128)])
def test_the_bubble_of_equal_stages_is_p_minus_1_over_m(schedule: str, pipeline: int, micro_batches: int) -> None:
    made = timeline(chunk_times(pipeline), micro_batches, schedule, 0.0)
    assert made.span_s == pytest.approx((micro_batches + pipeline - 1) * 3)
    assert made.bubble == pytest.approx((pipeline - 1) / (micro_batches + pipeline - 1))


@pytest.mark.parametrize(("pipeline", "chunks", "micro_batches"), [(2, 2, 4), (4, 2, 8), (8, 4, 32), (4, 3, 12)])
def test_chunks_divide_the_bubble(pipeline: int, chunks: int, micro_batches: int) -> None:
    made = timeline(chunk_times(pipeline, chunks), micro_batches, "interleaved", 0.0)
    assert made.span_s == pytest.approx((micro_batches + (pipeline - 1) / chunks) * 3)


@pytest.mark.parametrize(("pipeline", "micro_batches"), [(2, 4), (4, 7), (4, 12), (8, 32)])
@pytest.mark.parametrize(("backward", "weight"), [(2.0, 1.0), (2.2, 0.9), (2.5, 0.8)])
def test_zero_bubble_schedules_reach_the_papers_bubbles(
    pipeline: int, micro_batches: int, backward: float, weight: float
) -> None:
    """2401.10241, table 2: (p - 1)(F + B - W) for ZB-H1, (p - 1)(F + B - 2W) for ZB-H2; B without W."""
    times, input_s = chunk_times(pipeline, backward=backward, weight=weight), backward - weight
    busy = micro_batches * (1 + backward)
    first, second = (timeline(times, micro_batches, name, 0.0) for name in ("zb-1p", "zb-2p"))
    assert first.span_s - busy == pytest.approx((pipeline - 1) * (1 + input_s - weight))
    assert second.longest_rank_s - busy == pytest.approx((pipeline - 1) * (1 + input_s - 2 * weight))


def test_with_equal_thirds_zb_1p_has_a_third_of_the_bubble_and_zb_v_none() -> None:
    plain, first = (timeline(chunk_times(8), 32, name, 0.0) for name in ("1f1b", "zb-1p"))
    assert sum(first.idle_s) == pytest.approx(sum(plain.idle_s) / 3)
    v_shaped = timeline(chunk_times(8, 2), 32, "zb-v", 0.0)
    assert v_shaped.longest_rank_s == pytest.approx(max(v_shaped.busy_s))


def test_the_slowest_stage_sets_the_pace() -> None:
    """A head worth `extra` on the last of p stages: each micro-batch waits for it."""
    extra, p, m = 1.0, 4, 16
    made = timeline(chunk_times(p, head=extra), m, "1f1b", 0.0)
    assert made.span_s == pytest.approx((p - 1) * 3 + m * (3 + 3 * extra))
    assert made.idle_s[-1] < made.idle_s[0]


def test_blocking_transfers_lengthen_each_micro_batch_of_1f1b_by_two() -> None:
    """Out with the activation, in with its gradient; and 2 (p - 1) more to fill and to empty."""
    p, m, transfer_s = 4, 16, 0.01
    made = timeline(chunk_times(p), m, "1f1b", transfer_s)
    assert made.exposed_s == pytest.approx(made.span_s - (m + p - 1) * 3)
    assert made.exposed_s == pytest.approx(2 * (m - 1) * transfer_s + 2 * (p - 1) * transfer_s, rel=0.15)


def test_overlap_hides_the_transfers_of_interleaved_chunks() -> None:
    times = chunk_times(4, 2)
    blocking = timeline(times, 32, "interleaved", 0.01)
    overlapped = timeline(times, 32, "interleaved", 0.01, overlapped=True)
    assert blocking.exposed_s == pytest.approx(32 * 2 * 0.01, rel=0.25)  # one exchange for each F and B of a chunk
    assert overlapped.exposed_s < blocking.exposed_s / 5


# --- what is kept ----------------------------------------------------------------------------------------------------


def test_micro_batches_in_flight() -> None:
    """The closed forms of the memory model: p - r, (2(p - r - 1) + (v - 1)p + 1) / v, p, 2p - 1, p."""
    p, v, m = 4, 2, 16
    kept = {name: timeline(chunk_times(p, chunks_of(name)), m, name, 0.0).in_flight for name in SCHEDULES}
    assert kept["gpipe"] == (m,) * p
    assert kept["1f1b"] == (4, 3, 2, 1)
    assert kept["interleaved"] == tuple((2 * (p - r - 1) + (v - 1) * p + 1) / v for r in range(p))
    assert kept["zb-1p"] == (p,) * p
    assert kept["zb-2p"] == (2 * p - 1,) * p
    assert kept["zb-v"] == (p,) * p


def test_no_more_is_in_flight_than_there_is() -> None:
    assert in_flight(order("1f1b", 0, 8, 1, 2)) == 2
    assert in_flight(order("interleaved", 0, 4, 2, 4)) == 8


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("micro_batches", [8, 12, 32])
@pytest.mark.parametrize("pipeline", [2, 4])
def test_the_memory_model_keeps_what_the_order_keeps(schedule: str, micro_batches: int, pipeline: int) -> None:
    shape = ModelShape(layers=16, hidden_size=64, heads=4, kv_heads=4, head_size=16, ffn_size=128, vocab_size=512)
    v = chunks_of(schedule)
    case = Case(shape, 128, pipeline=pipeline, virtual_pipeline=v, micro_batches=micro_batches, schedule=schedule)
    for rank in range(pipeline):
        kept = in_flight(order(schedule, rank, pipeline, v, micro_batches)) / v
        assert passes_in_flight(case, rank) == kept


# --- order -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("transfer_s", [0.0, 0.3])
@pytest.mark.parametrize("micro_batches", [4, 8, 20])
def test_no_pass_starts_before_its_input_is_there(schedule: str, transfer_s: float, micro_batches: int) -> None:
    p, v = 4, chunks_of(schedule)
    made = timeline(chunk_times(p, v, head=0.7), micro_batches, schedule, transfer_s)
    ends: dict[tuple[str, int, int], Task] = {(t.kind, part(made, t), t.micro_batch): t for t in made.tasks}
    assert len(ends) == len(made.tasks) == p * v * micro_batches * (3 if schedule.startswith("zb") else 2)
    for tasks in made.by_rank():
        assert all(before.end_s <= after.start_s + 1e-9 for before, after in pairwise(tasks))
    for (kind, at, micro_batch), task in ends.items():
        need = {"F": ("F", at - 1), "B": ("B", at + 1), "W": ("B", at)}[kind]
        if kind == "B" and at == p * v - 1:
            need = ("F", at)
        before = ends.get((*need, micro_batch))
        assert (before is None) == (kind == "F" and at == 0)
        if before is not None:
            travels = transfer_s if before.pipeline_rank != task.pipeline_rank else 0.0
            assert task.start_s >= before.end_s + travels - 1e-9


def part(made: Timeline, task: Task) -> int:
    return part_of(made.schedule, task.pipeline_rank, task.chunk, made.pipeline)


@pytest.mark.parametrize(
    ("times", "micro_batches", "schedule", "what"),
    [
        (chunk_times(2), 4, "2f2b", "no schedule"),
        (chunk_times(2, 2), 4, "1f1b", "one chunk a rank"),
        (chunk_times(4, 2), 6, "interleaved", "whole groups"),
        (chunk_times(4, 3), 8, "zb-v", "two chunks"),
        (chunk_times(4, 2)[1:], 8, "interleaved", "times are not those"),
    ],
)
def test_what_a_schedule_cannot_have(times: list[ChunkTime], micro_batches: int, schedule: str, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        timeline(times, micro_batches, schedule, 0.0)


def test_an_order_that_cannot_be_executed_is_told() -> None:
    """Two ranks of which each waits for the other's message."""
    programs: Any = [[(0, 1, False, 1.0)], [(1, 0, False, 1.0)]]
    with pytest.raises(RuntimeError, match="wait for each other"):
        module._simulate(programs, [None, None], 0.0)


@pytest.mark.slow
def test_passes_and_exchanges_are_megatrons() -> None:
    """Its own two schedule functions run with recorders in place of passes and messages."""
    from tests.compiler.megatron_schedule import CASES

    command = [sys.executable, "-m", "tests.compiler.megatron_schedule"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    recorded = json.loads(done.stdout.splitlines()[-1])
    for case, ranks in zip(CASES, recorded, strict=True):
        for rank, events in enumerate(ranks):
            assert ours(*case, rank) == events, (case, rank)


def ours(pipeline: int, chunks: int, micro_batches: int, rank: int) -> list[Any]:
    """The program of our rank in the recorder's words."""
    name = "interleaved" if chunks > 1 else "1f1b"
    passes = order(name, rank, pipeline, chunks, micro_batches)
    routes = module._routes(name, pipeline, chunks, micro_batches)
    durations: Any = {(kind, chunk): 0.0 for kind in "FB" for chunk in range(chunks)}
    turns = module._turns(passes, warmup(rank, pipeline, chunks, micro_batches), name)
    to_come = iter(passes)
    sent_by = {
        route.gives + i: [kind, chunk, i] for (kind, chunk), route in routes[rank].items() for i in range(micro_batches)
    }
    received = {
        route.needs + i: kind
        for (kind, _), route in routes[rank].items()
        if route.from_afar
        for i in range(micro_batches)
    }
    events: list[Any] = []
    for step in module._blocking(turns, durations, routes[rank]):
        if step[0] is None:
            comes = {received[message] for message in step[1] if message in received}
            leaves = [sent_by[message] for message in step[1] if message not in received]
            events.append(["X", leaves, "F" in comes, "B" in comes])
        else:
            events.append(list(next(to_come)))
    return events


@pytest.mark.slow
@pytest.mark.parametrize(("pipeline", "micro_batches"), [(2, 4), (4, 8), (4, 3), (8, 20)])
def test_zb_v_is_pytorchs(pipeline: int, micro_batches: int) -> None:
    from types import SimpleNamespace

    schedules = pytest.importorskip("torch.distributed.pipelining.schedules")
    kinds = {schedules.F: "F", schedules.I: "B", schedules.W: "W"}
    for rank in range(pipeline):
        sizes = SimpleNamespace(pp_group_size=pipeline, _n_microbatches=micro_batches, num_stages=2 * pipeline)
        actions = schedules.ScheduleZBVZeroBubble._calculate_single_rank_operations(sizes, rank)
        theirs = [
            (kinds[each.computation_type], int(each.stage_index >= pipeline), each.microbatch_index)
            for each in actions
            if each is not None
        ]
        assert order("zb-v", rank, pipeline, 2, micro_batches) == theirs
