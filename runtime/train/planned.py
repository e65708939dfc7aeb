"""A phase's planned figures beside what its steps measure: `plan/step_time_error_pct`, `plan/memory_error_pct`.

An error is (planned - measured) / measured in percent: positive where the plan promised too much time or memory. The
measured step time is the median of this attempt's steps so far, the first WARM_UP_STEPS left out; the planned one is
of a step without failures and checkpoints. Memory is compared by the convention of `trainwright.runtime.train.memory`.
"""

from bisect import insort
from statistics import median

from trainwright.runtime.train.memory import MEASURED_STEP, StepMemory
from trainwright.runtime.train.observe import Observation
from trainwright.spec.artefact import WARM_UP_STEPS
from trainwright.spec.plan import Estimate

assert WARM_UP_STEPS >= MEASURED_STEP


class Planned:
    """The estimate of a phase, None if the plan has none, and the steps of one attempt."""

    def __init__(self, estimate: Estimate | None) -> None:
        self._time_s = estimate.step_time_s if estimate else None
        ranks = estimate.memory if estimate else ()
        self._memory_bytes = max((rank.allocated_bytes for rank in ranks), default=None)
        self._seen = 0
        self._times_s: list[float] = []  # sorted
        self._memory: StepMemory | None = None

    @property
    def measures_next(self) -> bool:
        """Whether the memory of the step that comes is to be measured."""
        return self._seen + 1 == MEASURED_STEP

    def after_step(self, took_s: float, memory: StepMemory | None, seen: Observation) -> dict[str, float]:
        """The step's metrics; `memory` as it was measured in this step, None in all others."""
        self._seen += 1
        values = {**memory.metrics(), **seen.metrics()} if memory else {}
        self._memory = memory or self._memory
        if self._memory and self._memory_bytes:
            values["plan/memory_error_pct"] = error_pct(self._memory_bytes, self._memory.allocated_bytes)
        if self._seen > WARM_UP_STEPS:
            insort(self._times_s, took_s)
            if self._time_s is not None:
                values["plan/step_time_error_pct"] = error_pct(self._time_s, median(self._times_s))
        return values


def error_pct(planned: float, measured: float) -> float:
    """By how much a plan missed, in percent of what was measured."""
    return (planned - measured) / measured * 100.0
