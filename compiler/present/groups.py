"""Which ranks of a phase work together on each axis, and whether a node's links carry it."""

from dataclasses import dataclass

from trainwright.spec.device import Link, Links
from trainwright.spec.plan import PhaseStage


@dataclass(frozen=True)
class Groups:
    """The groups of one axis: equally large, `stride` ranks apart inside a group."""

    axis: str
    does: str
    size: int
    stride: int
    count: int
    first: tuple[int, ...]  # ranks of rank 0's group
    nodes: int  # the most nodes that one group spans
    link: Link | None  # the slowest on its way, if it is known

    @property
    def where(self) -> str:
        """Whether a node holds each group, and how fast the links are."""
        place = "inside a node" if self.nodes == 1 else f"across {self.nodes:,} nodes"
        return place if self.link is None else f"{place}, {self.link.bytes_per_s / 1e9:,.4g} GB/s"


def groups_of(phase: PhaseStage, links: Links) -> list[Groups]:
    """The axes wider than one, innermost first; ZeRO's sub-groups of the data axis stand behind it."""
    layout = phase.layout
    tensor, context, data = 1, layout.tensor, layout.tensor * layout.context  # strides
    pipeline = data * layout.data
    axes = [
        ("tensor", "cuts matrices", layout.tensor, tensor),
        ("context", "cuts sequences", layout.context, context),
        ("data", "cuts the batch", layout.data, data),
        (f"ZeRO-{layout.zero}", "cuts the optimizer", _zero_size(phase), data),
        ("pipeline", "cuts layers", layout.pipeline, pipeline),
    ]
    return [_groups(phase, links, name, does, size, stride) for name, does, size, stride in axes if size > 1]


def short_ranks(ranks: tuple[int, ...] | range) -> str:
    """All of a few ranks, else the first ones and the last: `0, 8, 16, … 1,016`."""
    if len(ranks) <= 4:
        return ", ".join(f"{rank:,}" for rank in ranks)
    return f"{ranks[0]:,}, {ranks[1]:,}, {ranks[2]:,}, … {ranks[-1]:,}"


def layers_of(phase: PhaseStage, pipeline_rank: int) -> str:
    """What a pipeline rank holds: `embedding, layers 0–7 and 16–23`."""
    own = [chunk for chunk in phase.placement.chunks if chunk.pipeline_rank == pipeline_rank]
    spans = [f"{chunk.first_layer}–{chunk.last_layer - 1}" for chunk in own if chunk.last_layer > chunk.first_layer]
    parts = ["embedding"] if any(chunk.embedding for chunk in own) else []
    parts += [f"layers {' and '.join(spans)}"] if spans else []
    parts += ["head"] if any(chunk.head for chunk in own) else []
    return ", ".join(parts)


def ranks_of(phase: PhaseStage, pipeline_rank: int) -> range:
    """The global ranks of one pipeline rank: they are consecutive."""
    size = phase.layout.world_size // phase.layout.pipeline
    return range(pipeline_rank * size, (pipeline_rank + 1) * size)


def _zero_size(phase: PhaseStage) -> int:
    layout = phase.layout
    return layout.zero_group if layout.zero and layout.zero_group < layout.data else 1


def _groups(phase: PhaseStage, links: Links, axis: str, does: str, size: int, stride: int) -> Groups:
    world = phase.layout.world_size
    starts = [rank for rank in range(world) if rank // stride % size == 0]
    per_node = phase.placement.ranks_per_node
    # The members are in order and `stride` apart, so the nodes of one are counted without looking at all of them.
    nodes = max(_boxes(start, size, stride, per_node) for start in starts)
    near = max(_boxes(start, size, stride, links.domain or per_node) for start in starts) == 1
    first = tuple(range(0, size * stride, stride))
    return Groups(axis, does, size, stride, world // size, first, nodes, links.device if near else links.network)


def _boxes(start: int, size: int, stride: int, each: int) -> int:
    """How many boxes of `each` consecutive ranks a group touches."""
    if stride >= each:
        return size
    return (start + (size - 1) * stride) // each - start // each + 1
