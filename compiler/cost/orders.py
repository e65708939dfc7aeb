"""The order in which each pipeline rank works through its passes: what a pipeline schedule is, without any times.

A pass is the forward (F), backward (B) or weight-gradient (W) computation of one micro-batch in one model chunk. Only
the zero-bubble schedules have W; with the others it is part of B.

    gpipe        all forward passes, then all backward passes
    1f1b         Megatron-core 0.16.1, forward_backward_pipelining_without_interleaving
    interleaved  Megatron-core 0.16.1, forward_backward_pipelining_with_interleaving, groups of p micro-batches
    zb-1p        ZB-H1 of 2401.10241: keeps p micro-batches on each rank
    zb-2p        ZB-H2 of 2401.10241: keeps 2p - 1
    zb-v         ZB-V of 2401.10241, section 6: two chunks a rank, laid out as a V

Letters: p pipeline ranks, r one of them, v chunks a rank, m micro-batches.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Literal

Kind = Literal["F", "B", "W"]
Pass = tuple[Kind, int, int]  # kind, chunk, micro-batch

SCHEDULES = ("gpipe", "1f1b", "interleaved", "zb-1p", "zb-2p", "zb-v")
WITH_CHUNKS = ("interleaved", "zb-v")  # the others have one chunk a rank


def order(schedule: str, rank: int, pipeline: int, chunks: int, micro_batches: int) -> list[Pass]:
    """The passes of one pipeline rank. Raises ValueError for a schedule that cannot have these sizes."""
    p, v, m = pipeline, chunks, micro_batches
    if schedule not in SCHEDULES:
        raise ValueError(f"`{schedule}` is no schedule: there are {', '.join(SCHEDULES)}")
    if v != 1 and schedule not in WITH_CHUNKS:
        raise ValueError(f"`{schedule}` has one chunk a rank, not {v}")
    if schedule == "interleaved":
        if m % p:
            raise ValueError(f"`interleaved` takes micro-batches in groups of {p}, and {m} are not whole groups")
        return _interleaved(warmup(rank, p, v, m), p, v, m)
    if schedule == "zb-v":
        if v != 2:
            raise ValueError(f"`zb-v` has two chunks a rank, not {v}")
        return _zero_bubble_v(rank, p, m)
    if schedule == "zb-1p":
        return _zero_bubble(p - rank - 1, rank, p, m)
    if schedule == "zb-2p":
        return _zero_bubble(2 * (p - rank - 1), 2 * rank, 2 * p - 1, m)
    return _one_forward_one_backward(m if schedule == "gpipe" else warmup(rank, p, v, m), m)


def warmup(rank: int, pipeline: int, chunks: int, micro_batches: int) -> int:
    """Forward passes before the first that a backward pass follows: Megatron's `get_pp_rank_microbatches`."""
    later = pipeline - rank - 1
    passes = later if chunks == 1 else 2 * later + (chunks - 1) * pipeline
    return min(passes, micro_batches * chunks)


def part_of(schedule: str, rank: int, chunk: int, pipeline: int) -> int:
    """Where in the model a chunk stands: Megatron deals parts round and round, `zb-v` back and forth."""
    backwards = schedule == "zb-v" and chunk % 2 == 1
    return chunk * pipeline + (pipeline - 1 - rank if backwards else rank)


def in_flight(passes: list[Pass]) -> int:
    """The most chunk passes whose activations the rank keeps at once: from F until their last gradient is there."""
    last = "W" if any(kind == "W" for kind, _, _ in passes) else "B"
    kept = most = 0
    for kind, _, _ in passes:
        if kind == "F":
            kept += 1
            most = max(most, kept)
        elif kind == last:
            kept -= 1
    return most


def _one_forward_one_backward(warmup: int, m: int) -> list[Pass]:
    passes: list[Pass] = [("F", 0, i) for i in range(warmup)]
    for i in range(m - warmup):
        passes += (("F", 0, warmup + i), ("B", 0, i))
    passes += [("B", 0, i) for i in range(m - warmup, m)]
    return passes


def _interleaved(warmup: int, p: int, v: int, m: int) -> list[Pass]:
    """Megatron's `get_schedule_table`: chunk by chunk within each group of p micro-batches."""
    table = [(chunk, group + i) for group in range(0, m, p) for chunk in range(v) for i in range(p)]
    forward: list[Pass] = [("F", chunk, i) for chunk, i in table]
    backward: list[Pass] = [("B", v - 1 - chunk, i) for chunk, i in table]
    passes = forward[:warmup]
    for pair in zip(forward[warmup:], backward, strict=False):
        passes += pair
    return passes + backward[len(backward) - warmup :]


def _zero_bubble(warmup: int, deferred: int, tail: int, m: int) -> list[Pass]:
    """F, B and W in turn. Over the last `tail` micro-batches `deferred` weight passes are put off to the end.

    That lets the last gradients run back through the ranks without waiting for weight passes, which then fill the
    idle end: figures 2 and 3 of the paper.
    """
    passes: list[Pass] = [("F", 0, i) for i in range(min(warmup, m))]
    weights: Iterator[Pass] = iter([("W", 0, i) for i in range(m)])
    for i in range(m):
        if i + warmup < m:
            passes.append(("F", 0, i + warmup))
        passes.append(("B", 0, i))
        if not m - tail <= i < m - tail + deferred:
            passes += islice(weights, 1)
    return [*passes, *weights]


def _zero_bubble_v(r: int, p: int, m: int) -> list[Pass]:
    """Section 6 of the paper, in the order of PyTorch's ScheduleZBVZeroBubble, without micro-batches past m."""
    count = max(2 * p - 1, m)
    done = {(kind, chunk): 0 for kind in ("F", "B", "W") for chunk in (0, 1)}
    passes: list[Pass] = []

    def take(kinds: str, chunk: int) -> None:
        for kind in kinds:
            at = done[kind, chunk]
            done[kind, chunk] += 1
            if at < m:
                passes.append((kind, chunk, at))  # type: ignore[arg-type]

    for _ in range(2 * (p - r) - 1):
        take("F", 0)
    for _ in range(r):
        take("F", 1)
        take("F", 0)
    for _ in range(p - r):
        take("FBW", 1)
    while done["F", 1] < done["F", 0] or done["F", 0] < count:
        take("FBW" if done["F", 0] < count else "BW", 0)
        take("FBW", 1)
    for _ in range(r):
        take("B", 0)
        take("B", 1)
    for _ in range(p - r):
        take("BW", 0)
    while done["W", 1] < done["B", 1]:
        take("W", 1)
    while done["W", 0] < done["B", 0]:
        take("W", 0)
    return passes
