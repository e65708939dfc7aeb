"""The phases of an iteration, told as events and measured, and the wish to stop, which is asked for inside each.

An iteration is generate, score, critic, actor and, where one is due, save. Until the critic learns nothing has
changed, so a round that is asked to stop before that drops the iteration; after that it finishes the iteration.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import distributed

from trainwright.runtime import host
from trainwright.runtime.events import EventLog
from trainwright.runtime.train.step import over_all_ranks

Phase = Literal["generate", "score", "critic", "actor", "save"]


class Stopped(Exception):
    """A rank was asked to stop, and the iteration has changed nothing yet. All ranks raise it together."""


class Phases:
    """Times of the iteration's phases on this rank, and what was asked of any rank."""

    def __init__(self, stage: str, events: EventLog, should_stop: Callable[[], bool]) -> None:
        self._stage, self._events, self._should_stop = stage, events, should_stop
        self._seconds: dict[Phase, float] = {}

    @contextmanager
    def phase(self, phase: Phase, iteration: int) -> Iterator[None]:
        """The block is a phase of the iteration, counted from 1. Rank 0 tells when it begins."""
        if distributed.get_rank() == 0:
            self._events.write("ppo_phase", stage=self._stage, phase=phase, iteration=iteration)
        began = time.perf_counter()
        yield
        if host.device().type == "cuda":
            torch.cuda.synchronize()
        self._seconds[phase] = self._seconds.get(phase, 0.0) + time.perf_counter() - began

    def take_ms(self) -> dict[str, float]:
        """The phases since the last call. A save is told with the iteration after it."""
        times = {f"ppo_time/{phase}_ms": seconds * 1e3 for phase, seconds in self._seconds.items()}
        self._seconds.clear()
        return times

    def leave_if_asked(self) -> None:
        """Raises Stopped if any rank was asked to stop. A collective."""
        if any_rank(self._should_stop()):
            raise Stopped


def any_rank(own: bool) -> bool:
    """Whether it holds on any rank. A collective."""
    return bool(over_all_ranks(torch.tensor(float(own), device=host.device())).item() > 0)
