"""What a search over layouts found."""

from dataclasses import dataclass

from trainwright.compiler.search.question import Question, Request
from trainwright.spec.plan import Layout, RankMemory, StepTime
from trainwright.spec.topology import Topology

Shards = tuple[int, ...]  # what decides which parameters a rank holds


def shards_of(layout: Layout | Topology) -> Shards:
    """The sizes of a layout, or of a topology that states them."""
    return tuple(getattr(layout, key) for key in ("tensor", "pipeline", "virtual_pipeline", "context"))


@dataclass(frozen=True)
class Candidate:
    """A layout with its price."""

    layout: Layout
    memory: RankMemory  # of the fullest pipeline rank
    step: StepTime

    @property
    def family(self) -> tuple[int, ...]:
        """Layouts with the same ranks on each axis: they differ in how they use them."""
        return self.layout.tensor, self.layout.pipeline, self.layout.context

    @property
    def shards(self) -> Shards:
        return shards_of(self.layout)


@dataclass(frozen=True)
class PhaseSearch:
    """What was found for one phase."""

    question: Question
    legal: int  # layouts that the runtime can execute; all, if asked so
    left_out: int  # legal ones that it cannot execute
    fit: int  # of the legal ones
    limit_bytes: float | None  # of a card's memory; None: nothing is known of it
    best: tuple[Candidate, ...]  # fastest first, the best of each family
    too_large: tuple[Candidate, ...]  # would be faster than the best, but need too much memory
    smallest: Candidate | None  # where nothing fits: what needs least memory


@dataclass(frozen=True)
class Choice:
    """The layout chosen for a phase."""

    candidate: Candidate
    reshard_s: float  # of loading the checkpoint of the phase before under another layout


@dataclass(frozen=True)
class ClusterTried:
    """What all phases take on a cluster of some size."""

    nodes: int
    duration_s: float | None  # None: a phase fits in no layout
    gpu_hours: float | None


@dataclass(frozen=True)
class Search:
    """What was found for the phases whose layout was left open, by the phase's index."""

    request: Request
    opened: bool  # nothing said "auto", so what nobody wrote was free
    phases: dict[int, PhaseSearch]
    choices: dict[int, Choice]
