"""Ranks on nodes for the page: one replica of the model in full, the others counted, so that any world stays light."""

from dataclasses import dataclass

from trainwright.spec.plan import PhaseStage

MOST_NODES = 24  # drawn; a replica on more nodes is cut, and the page says so


@dataclass(frozen=True)
class Cell:
    """A device and the rank on it; `own`: of the replica that is drawn."""

    rank: int
    pipeline: int
    data: int
    own: bool
    title: str


@dataclass(frozen=True)
class NodeView:
    number: int
    stages: str  # pipeline ranks on it
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class PlacementView:
    """The nodes that hold data rank 0. `sizes`: tensor, context, data, pipeline, ZeRO group, ranks per node."""

    nodes: tuple[NodeView, ...]
    replica_nodes: int
    replicas: int
    all_nodes: int
    sizes: tuple[int, int, int, int, int, int]


def placement_view(phase: PhaseStage) -> PlacementView:
    """Where the ranks of a phase run."""
    layout, per_node = phase.layout, phase.placement.ranks_per_node
    block = layout.tensor * layout.context  # ranks of one replica on one pipeline rank: they are consecutive
    starts = range(0, layout.world_size, block * layout.data)
    ranks = [rank for start in starts for rank in range(start, start + block)]
    numbers = sorted({rank // per_node for rank in ranks})
    return PlacementView(
        nodes=tuple(_node(phase, number) for number in numbers[:MOST_NODES]),
        replica_nodes=len(numbers),
        replicas=layout.data,
        all_nodes=phase.placement.nodes,
        sizes=(layout.tensor, layout.context, layout.data, layout.pipeline, layout.zero_group, per_node),
    )


def _node(phase: PhaseStage, number: int) -> NodeView:
    per_node, world = phase.placement.ranks_per_node, phase.layout.world_size
    cells = [_cell(phase, rank) for rank in range(number * per_node, min((number + 1) * per_node, world))]
    first, last = cells[0].pipeline, cells[-1].pipeline
    return NodeView(number, f"pp {first}" if first == last else f"pp {first}–{last}", tuple(cells))


def _cell(phase: PhaseStage, rank: int) -> Cell:
    at = phase.layout.coordinates(rank)
    title = f"rank {rank}: tensor {at.tensor}, context {at.context}, data {at.data}, pipeline {at.pipeline}"
    return Cell(rank, at.pipeline, at.data, at.data == 0, title)
