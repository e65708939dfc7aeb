"""One training step under torch's profiler, on a CPU: what it allocated, and what its time was spent on.

CUDA counts its own peak of memory at all times; its kernels' times are not looked at yet.
"""

import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

# Operator -> what its time counts as, as in a plan's parts of a step. None of them calls another one.
_KINDS = {
    "aten::mm": "matmul",
    "aten::addmm": "matmul",
    "aten::bmm": "matmul",
    "aten::_scaled_dot_product_flash_attention_for_cpu": "attention",
    "aten::_scaled_dot_product_flash_attention_for_cpu_backward": "attention",
}
_EXCHANGE = "gloo:"  # of any kind, and the waiting for others


@dataclass
class Observation:
    """Filled when the step is done; empty where there is no profile."""

    growth_bytes: float | None = None  # the most that the step held beyond what lay there before it
    took_s: float = 0.0  # without the profiler's own beginning and end
    seconds: dict[str, float] = field(default_factory=dict)  # of that: matmul, attention, exchange

    def metrics(self) -> dict[str, float]:
        """The parts of the step's time in milliseconds."""
        if not self.seconds:
            return {}
        parts = {**self.seconds, "other": max(0.0, self.took_s - sum(self.seconds.values()))}
        return {f"profile/{kind}_ms": seconds * 1e3 for kind, seconds in parts.items()}


@contextmanager
def observed(wanted: bool) -> Iterator[Observation]:
    """Inside the block, one step runs; it takes about a tenth longer if it is `wanted` on a CPU."""
    found = Observation()
    if not wanted or torch.cuda.is_available():
        yield found
        return
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # its start and stop are no news to a user
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        started = time.perf_counter()
        yield found
        found.took_s = time.perf_counter() - started
    assert profiler.profiler is not None
    results = profiler.profiler.kineto_results
    assert results is not None
    events = results.events()
    found.growth_bytes = _growth(events)
    found.seconds = _seconds(events)


def _growth(events: Iterable[Any]) -> float:
    held = most = 0
    for _, grown in sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"):
        held += grown
        most = max(most, held)
    return float(most)


def _seconds(events: Iterable[Any]) -> dict[str, float]:
    spent: Counter[str] = Counter({"matmul": 0, "attention": 0})
    for event in events:
        name = event.name()
        kind = "exchange" if name.startswith(_EXCHANGE) else _KINDS.get(name)
        if kind is not None:
            spent[kind] += event.duration_ns()
    return {kind: nanoseconds / 1e9 for kind, nanoseconds in spent.items()}
