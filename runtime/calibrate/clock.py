"""How long a piece of work takes on this process's device.

The figure is the median of the faster half of the calls: what else a machine does can only add to them.
"""

import time
from collections.abc import Callable, Sequence
from statistics import median

import torch

_FEWEST_CALLS, _MOST_CALLS = 3, 200


def seconds(work: Callable[[], object], limit_s: float) -> float:
    """The time of one call, after one to warm up. About `limit_s` is spent, more if three calls take longer."""
    first_s = _once(work)
    if first_s > limit_s:
        return min(first_s, _once(work))
    taken_s: list[float] = []
    began = time.perf_counter()
    while len(taken_s) < _FEWEST_CALLS or (len(taken_s) < _MOST_CALLS and time.perf_counter() - began < limit_s):
        taken_s.append(_once(work))
    return _typical(taken_s)


def repeated(work: Callable[[], object], calls: int) -> float:
    """The time of one of so many calls."""
    return _typical([_once(work) for _ in range(calls)])


def _typical(taken_s: Sequence[float]) -> float:
    return median(sorted(taken_s)[: (len(taken_s) + 1) // 2])


def _once(work: Callable[[], object]) -> float:
    _synchronize()
    started = time.perf_counter()
    work()
    _synchronize()
    return time.perf_counter() - started


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
