"""How long a piece of work on a device takes: medians, each run with a cold cache on a GPU."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

_FLUSHED_BYTES = 256 << 20  # more than any level-2 cache


@dataclass(frozen=True)
class Timing:
    """Of `runs` runs, in milliseconds; the spread is that between the quarters."""

    median_ms: float
    spread_ms: float
    runs: int


def timed(work: Callable[[], object], device: torch.device, *, limit_s: float = 1.0, least: int = 3) -> Timing:
    """The work's time, over runs of together about `limit_s`, at least so many, after two that do not count."""
    flushed = torch.empty(_FLUSHED_BYTES, dtype=torch.int8, device=device) if device.type == "cuda" else None
    for _ in range(2):
        work()
    times_ms = [_run_ms(work, device, flushed)]
    runs = max(least, min(100, int(limit_s * 1e3 / max(times_ms[0], 1e-3))))
    times_ms += [_run_ms(work, device, flushed) for _ in range(runs - 1)]
    quarters = statistics.quantiles(times_ms, n=4)
    return Timing(statistics.median(times_ms), quarters[2] - quarters[0], runs)


def _run_ms(work: Callable[[], object], device: torch.device, flushed: torch.Tensor | None) -> float:
    if flushed is None:
        began = time.perf_counter()
        work()
        return (time.perf_counter() - began) * 1e3
    flushed.zero_()
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    start.record()
    work()
    stop.record()
    torch.cuda.synchronize(device)
    return float(start.elapsed_time(stop))
