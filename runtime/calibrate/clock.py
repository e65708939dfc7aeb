"""How long a piece of work takes on this process's device: the median of as many runs as a time limit allows."""

import time
from collections.abc import Callable
from statistics import median

import torch

_FEWEST_RUNS, _MOST_RUNS = 3, 200


def seconds(work: Callable[[], object], limit_s: float) -> float:
    """The median time of one call; about `limit_s` is spent, and three calls at least after one to warm up."""
    _synchronize()
    work()
    taken: list[float] = []
    began = time.perf_counter()
    while len(taken) < _FEWEST_RUNS or (len(taken) < _MOST_RUNS and time.perf_counter() - began < limit_s):
        taken.append(_once(work))
    return median(taken)


def repeated(work: Callable[[], object], runs: int) -> float:
    """The median time of so many calls."""
    return median(_once(work) for _ in range(runs))


def _once(work: Callable[[], object]) -> float:
    _synchronize()
    started = time.perf_counter()
    work()
    _synchronize()
    return time.perf_counter() - started


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
