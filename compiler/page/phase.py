"""A phase on the page: its facts, the bars of memory and time, its placement and its pipeline."""

from dataclasses import dataclass

from trainwright.compiler.draw import describe
from trainwright.compiler.figures import size
from trainwright.compiler.page.gantt import Gantt, gantt_of
from trainwright.compiler.page.placement import PlacementView, placement_view
from trainwright.compiler.present.facts import TERMS, Fullest, batch, fullest_of
from trainwright.compiler.present.groups import Groups, groups_of, layers_of, short_ranks
from trainwright.compiler.present.tables import interval, percent, seconds
from trainwright.compiler.present.time import goodput
from trainwright.compiler.present.words import checkpoints, kernels, layout, learning_rate, mixture
from trainwright.spec.device import Links
from trainwright.spec.plan import Estimate, PhaseStage, RankMemory, StepTime
from trainwright.spec.units import format_count


@dataclass(frozen=True)
class Piece:
    """A piece of a stacked bar: its place in the palette, what it is, how much, and its share of the bar."""

    color: int
    name: str
    amount: str
    share: float


@dataclass(frozen=True)
class MemoryRow:
    """A pipeline rank's memory."""

    rank: str
    holds: str
    pieces: tuple[Piece, ...]
    total: str
    card: str  # share of the card
    peak: str
    binds: str


@dataclass(frozen=True)
class MemoryView:
    """`capacity_share`: where on the bars the card ends; None if its size is not known."""

    terms: tuple[tuple[int, str], ...]  # colour and name of those that anybody needs
    rows: tuple[MemoryRow, ...]
    capacity: str
    capacity_share: float | None
    fullest: MemoryRow
    kinds: tuple[Piece, ...]  # activations of the fullest rank; shares of the largest


@dataclass(frozen=True)
class TimeView:
    """The parts of a step, the longest first; a piece's share is of the longest, `shares` are of the step."""

    pieces: tuple[Piece, ...]
    shares: tuple[str, ...]
    step: str
    step_range: str
    goodput: str


@dataclass(frozen=True)
class GroupRow:
    axis: str
    does: str
    size: int
    count: int
    first: str
    where: str


@dataclass(frozen=True)
class PhaseView:
    """All that the page shows of one phase."""

    name: str
    does: str
    facts: tuple[tuple[str, str], ...]
    groups: tuple[GroupRow, ...]
    placement: PlacementView
    memory: MemoryView
    time: TimeView | None
    gantt: Gantt | None


def phase_view(phase: PhaseStage, estimate: Estimate, links: Links) -> PhaseView:
    """The phase and its estimate in words and shares."""
    return PhaseView(
        name=phase.name,
        does=describe(phase),
        facts=_facts(phase, estimate),
        groups=tuple(_group(each) for each in groups_of(phase, links)),
        placement=placement_view(phase),
        memory=_memory(phase, estimate),
        time=_time(estimate, estimate.step) if estimate.step else None,
        gantt=gantt_of(phase, estimate),
    )


def _facts(phase: PhaseStage, estimate: Estimate) -> tuple[tuple[str, str], ...]:
    begins = f"the last checkpoint of {phase.start_from}" if phase.start_from else f"seed {phase.seed}"
    return (
        ("layout", layout(phase)),
        *([("kernels", kernels(phase))] if phase.operators else []),
        ("batch", f"{format_count(phase.tokens_per_step)} tokens: {batch(phase)}"),
        ("learning rate", learning_rate(phase.learning_rate)),
        ("mixture", mixture(phase, estimate.passes)),
        ("RoPE base", f"{phase.rope_base:,.0f}"),
        ("starts from", begins),
        ("checkpoints", checkpoints(phase.checkpoint)),
    )


def _group(groups: Groups) -> GroupRow:
    return GroupRow(groups.axis, groups.does, groups.size, groups.count, short_ranks(groups.first), groups.where)


def _memory(phase: PhaseStage, estimate: Estimate) -> MemoryView:
    full = fullest_of(estimate)
    whole = max(full.memory.total_bytes, estimate.capacity_bytes or 0)
    rows = tuple(_memory_row(phase, estimate, memory, whole) for memory in estimate.memory)
    used = [(color, name) for color, (_, name, of) in enumerate(TERMS) if any(map(of, estimate.memory))]
    return MemoryView(
        terms=tuple(used),
        rows=rows,
        capacity=size(estimate.capacity_bytes) if estimate.capacity_bytes else "",
        capacity_share=estimate.capacity_bytes / whole if estimate.capacity_bytes else None,
        fullest=rows[estimate.memory.index(full.memory)],
        kinds=_kinds(full),
    )


def _memory_row(phase: PhaseStage, estimate: Estimate, memory: RankMemory, whole_bytes: int) -> MemoryRow:
    pieces = [
        Piece(color, name, size(of(memory)) if of(memory) else "–", of(memory) / whole_bytes)
        for color, (_, name, of) in enumerate(TERMS)
    ]
    capacity = estimate.capacity_bytes
    return MemoryRow(
        rank=f"pp {memory.pipeline_rank}" if len(estimate.memory) > 1 else "each rank",
        holds=layers_of(phase, memory.pipeline_rank),
        pieces=tuple(pieces),
        total=size(memory.total_bytes),
        card=percent(memory.total_bytes / capacity if capacity else None),
        peak=memory.peak,
        binds=memory.binds,
    )


def _kinds(full: Fullest) -> tuple[Piece, ...]:
    kinds = sorted(full.memory.activations.items(), key=lambda item: -item[1])
    largest = max(full.memory.activations.values(), default=0) or 1
    return tuple(Piece(3, name, size(amount), amount / largest) for name, amount in kinds)


def _time(estimate: Estimate, step: StepTime) -> TimeView:
    parts = sorted(step.parts.items(), key=lambda item: -item[1])
    longest = max(step.parts.values(), default=0.0) or 1.0
    return TimeView(
        pieces=tuple(Piece(0, name, seconds(value), value / longest) for name, value in parts),
        shares=tuple(percent(value / step.time_s) for _, value in parts),
        step=seconds(step.time_s),
        step_range=interval(seconds, step.low_s, step.high_s),
        goodput=goodput(estimate.goodput) if estimate.goodput else "",
    )
