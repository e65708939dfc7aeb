"""What passes work on: a plan in the making, and how a pass declares itself."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainwright.compiler.graph import StageGraph
from trainwright.compiler.search.question import Request
from trainwright.compiler.search.result import Search
from trainwright.spec.diagnostics import Diagnostic, KeyPath, Label, Span
from trainwright.spec.load import Loaded, Origins
from trainwright.spec.plan import (
    AnyStage,
    Assumption,
    Estimate,
    Hardware,
    IterationEstimate,
    Layout,
    LearningRatePlan,
    ModelPlan,
    Notice,
    RankMemory,
    SourcePlan,
)
from trainwright.spec.spec import Spec
from trainwright.spec.topology import Topology

SECTIONS = tuple(f"spec.{name}" for name in Spec.__struct_fields__)  # what a pass can need of the spec


@dataclass(frozen=True)
class PhaseCourse:
    """What a phase does once its inheritance is resolved."""

    start_from: str | None
    tokens_per_step: int
    steps: int
    sequences_per_step: int
    rope_base: float
    learning_rate: LearningRatePlan


class SizedTopology(Topology, kw_only=True, frozen=True):
    """A topology with nothing left to search for; what has a rule of its own may still be `"auto"`."""

    tensor: int = 1
    pipeline: int = 1
    virtual_pipeline: int = 1
    context: int = 1
    zero: Literal[0, 1, 2, 3] = 1
    zero_group: int | None = None
    recompute: Literal["none", "selective", "full"] = "none"


AlignmentKind = Literal["sft", "reward", "ppo", "dpo"]


@dataclass(frozen=True)
class AlignmentCourse:
    """What a stage of alignment does once what it takes over is resolved. Lengths and tokens as in the plan."""

    kind: AlignmentKind
    phase: int  # the phase at the root of its chain
    start_from: str  # the stage that its weights, and PPO's reference, are of
    topology: SizedTopology
    data: int  # ranks
    sequence_length: int  # of a row
    longest: int  # of one conversation
    sequences_per_step: int

    @property
    def tokens_per_step(self) -> int:
        return self.sequences_per_step * self.sequence_length


class Draft:
    """A plan in the making. Each attribute below the first group is set by the one pass that `gives` it."""

    spec: Spec  # a table in `broken` is None; no pass that needs it runs
    broken: frozenset[str]
    origins: Origins
    root: Path  # the spec's folder
    files: tuple[Path, ...]  # the spec's, and those it extends
    plan_folder: Path | None  # where the plan will lie; None: beside the spec
    request: Request | None  # what the command line asks of the search

    model: ModelPlan
    hardware: Hardware
    mixtures: dict[str, dict[str, float]]  # over sources, sums to 1
    courses: tuple[PhaseCourse, ...]  # one a phase
    open_topologies: tuple[Topology, ...]  # one a phase, its overrides merged; what is free is "auto"
    opened: bool  # nobody wrote "auto", and the search got what nobody wrote
    search: Search | None  # None: nothing was left open
    topologies: tuple[SizedTopology, ...]  # one a phase, with what the search chose
    data_ranks: tuple[int, ...]  # one a phase
    layouts: tuple[Layout, ...]  # one a phase
    alignment: dict[AlignmentKind, AlignmentCourse]  # the kinds that the spec has
    sources: dict[str, SourcePlan]  # those that some stage reads
    tokenizer_digest: str | None
    aligned: tuple[AnyStage, ...]  # the stages of alignment, by rounds
    lowered: StageGraph
    placed: StageGraph
    named: StageGraph  # placed, with kernels
    graph: StageGraph  # named, with fingerprints
    memory: dict[str, tuple[RankMemory, ...]]  # phase -> one for each pipeline rank
    expected_steps: dict[str, int | None]  # of stages whose data decide it; None: nobody can tell
    iterations: dict[str, tuple[IterationEstimate, ...]]  # of a stage of PPO, by placement
    expected_tokens: dict[str, float | None]  # of sources: about how many they hold; None: nobody can tell
    passes: dict[str, dict[str, float]]  # by phase and source: how often the phase reads its text
    estimates: tuple[Estimate, ...]
    assumptions: tuple[Assumption, ...]
    notices: tuple[Notice, ...]

    def __init__(self, spec: Spec, loaded: Loaded, plan_folder: Path | None, request: Request | None = None) -> None:
        self.spec = spec
        self.broken = loaded.broken
        self.origins = loaded.origins
        self.root = loaded.root
        self.files = loaded.files
        self.plan_folder = plan_folder
        self.request = request

    def value_at(self, *path: str | int) -> Span | None:
        """Where the value stands; its nearest table if nobody wrote it; None if it came from no file."""
        return self.origins.span(path, of="value")

    def key_at(self, *path: str | int) -> Span | None:
        """Where the key stands, as `value_at`."""
        return self.origins.span(path, of="key")

    def label(self, text: str, *path: str | int) -> tuple[Label, ...]:
        """A label at a value that is written in a file, else none."""
        origin = self.origins.at(path)
        span = self.origins.span(path, of="value") if origin.kind in ("file", "when", "matrix") else None
        return (Label(span, text),) if span else ()

    def topology_path(self, phase: int, key: str) -> KeyPath:
        """Where a phase's topology takes this value from: its own table or the spec's."""
        if key == "context" and self._written(phase, "tensor_mode") == "isp":
            key = "tensor"  # what InternEvo's tensor ranks split is the sequence
        own = getattr(self.spec.phases[phase].topology, key) is not None
        return ("phases", phase, "topology", key) if own else ("topology", key)

    def _written(self, phase: int, key: str) -> object:
        own = getattr(self.spec.phases[phase].topology, key)
        return getattr(self.spec.topology, key) if own is None else own


def _nothing(draft: Draft) -> tuple[str, ...]:
    return ()


@dataclass(frozen=True)
class Pass:
    """Derives `gives`, attributes of the Draft, from `needs`: attributes and facts that checks established.

    `also` says what it needs besides for this draft, once its needs are met.
    """

    run: Callable[[Draft], None]
    needs: tuple[str, ...]
    gives: tuple[str, ...]
    also: Callable[[Draft], tuple[str, ...]] = _nothing

    @property
    def name(self) -> str:
        return self.run.__name__


@dataclass(frozen=True)
class Check:
    """Reports mistakes and changes nothing. Without an error, the fact `holds` is established."""

    run: Callable[[Draft], Iterable[Diagnostic]]
    needs: tuple[str, ...]
    holds: str

    @property
    def name(self) -> str:
        return self.run.__name__
