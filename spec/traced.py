"""What a traced rank allocates: found by running the runtime's own code without memory (`plan --trace-memory`)."""

from typing import Literal

from trainwright.spec.plan import Part, PhaseStage, RankMemory


class TraceJob(Part, kw_only=True, frozen=True):
    """A rank of a phase to be traced, as it would run on `device`."""

    stage: PhaseStage
    rank: int
    device: Literal["cpu", "cuda"]


class TracedRank(Part, kw_only=True, frozen=True):
    """What a rank allocates in one optimizer step."""

    stage: str
    rank: int
    memory: RankMemory  # `framework_bytes` is 0: nothing outside of the allocator is traced
    micro_batches: int  # that were run: as many as reach the peak
    operators: int
    seconds: float
