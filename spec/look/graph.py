"""The stage graph as SVG: a layer a topological generation. A page's style sheet colours the states."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import networkx
from markupsafe import Markup

_NODE_HEIGHT, _GAP_ACROSS, _MARGIN = 44, 14, 2
_LEAST_STEP, _GAP_BANDS = 128.0, 34  # from layer to layer to the right; between bands of layers
_LETTER_PX = 7.2


@dataclass(frozen=True)
class Node:
    """A stage as it is drawn: its name above, `below` under it; `state` is a CSS class, `title` the whole story."""

    name: str
    needs: tuple[str, ...]
    state: str
    title: str
    below: str


@dataclass(frozen=True)
class _Frame:
    """Turns (layer, place across) into pixels. Layers run down on a narrow page, else to the right in bands."""

    down: bool
    width: float
    node_width: float
    layer_step: float
    breadth: int
    band: int  # layers of one band

    def is_one_band(self, layer: int, other: int) -> bool:
        return layer // self.band == other // self.band

    def corner(self, layer: int, place: int, of: int) -> tuple[float, float]:
        across_step = (self.node_width if self.down else _NODE_HEIGHT) + _GAP_ACROSS
        across = _MARGIN + place * across_step + (self.breadth - of) * across_step / 2
        band, layer = divmod(layer, self.band)
        across += band * (self.breadth * across_step + _GAP_BANDS)
        along = _MARGIN + layer * self.layer_step
        return (across, along) if self.down else (along, across)


def layers(nodes: Sequence[Node]) -> list[list[str]]:
    """Names by topological generation; inside one, ordered by where their needs stand, so that few arrows cross."""
    graph = _graph(nodes)
    ordered: list[list[str]] = []
    position: dict[str, float] = {}
    for generation in networkx.topological_generations(graph):
        names = sorted(generation, key=lambda name: _mean([position[need] for need in graph.predecessors(name)]))
        ordered.append(names)
        position.update({name: index - (len(names) - 1) / 2 for index, name in enumerate(names)})
    return ordered


def draw_graph(nodes: Sequence[Node], width: int, css: str, *, down: bool) -> Markup:
    """The graph as an `<svg>`; an arrow that a longer path implies is left out."""
    rows = layers(nodes)
    breadth = max((len(row) for row in rows), default=1)
    frame = _frame(len(rows), breadth, width, down)
    corners = {
        name: frame.corner(layer, place, len(row)) for layer, row in enumerate(rows) for place, name in enumerate(row)
    }
    reduced = networkx.transitive_reduction(_graph(nodes))
    layer_of = {name: layer for layer, row in enumerate(rows) for name in row}
    arrows = [
        _arrow(corners[a], corners[b], frame, frame.down or not frame.is_one_band(layer_of[a], layer_of[b]))
        for a, b in sorted(reduced.edges)
    ]
    boxes = [_node(node, corners[node.name], frame.node_width) for node in nodes]
    right = max((x for x, _ in corners.values()), default=0) + frame.node_width + _MARGIN
    bottom = max((y for _, y in corners.values()), default=0) + _NODE_HEIGHT + _MARGIN
    return Markup(
        '<svg class="graph {}" viewBox="0 0 {:.0f} {:.0f}" width="{:.0f}" role="img" aria-label="stages">{}{}</svg>'
    ).format(css, right, bottom, right, Markup("").join(arrows), Markup("").join(boxes))


def _graph(nodes: Sequence[Node]) -> "networkx.DiGraph[str]":
    graph: networkx.DiGraph[str] = networkx.DiGraph()
    graph.add_nodes_from(node.name for node in nodes)
    graph.add_edges_from((need, node.name) for node in nodes for need in node.needs)
    return graph


def _frame(depth: int, breadth: int, width: int, down: bool) -> _Frame:
    if down:
        node_width = (width - 2 * _MARGIN - (breadth - 1) * _GAP_ACROSS) / max(breadth, 2)
        return _Frame(True, width, min(node_width, 180), _NODE_HEIGHT + 26, breadth, max(depth, 1))
    room = width - 2 * _MARGIN + 26
    bands = max(1, math.ceil(depth * _LEAST_STEP / room))
    band = max(1, math.ceil(depth / bands))  # equally long bands
    step = max(_LEAST_STEP, min(190.0, room / band))
    return _Frame(False, width, step - 26, step, breadth, band)


def _arrow(tail: tuple[float, float], head: tuple[float, float], frame: _Frame, down: bool) -> Markup:
    if down:
        x1, y1 = tail[0] + frame.node_width / 2, tail[1] + _NODE_HEIGHT
        x2, y2 = head[0] + frame.node_width / 2, head[1] - 5
        bend = (y2 - y1) / 2
        path = f"M{x1:.1f} {y1:.1f}C{x1:.1f} {y1 + bend:.1f} {x2:.1f} {y2 - bend:.1f} {x2:.1f} {y2:.1f}"
        tip = f"M{x2 - 3.5:.1f} {y2:.1f}h7l-3.5 5z"
    else:
        x1, y1 = tail[0] + frame.node_width, tail[1] + _NODE_HEIGHT / 2
        x2, y2 = head[0] - 5, head[1] + _NODE_HEIGHT / 2
        bend = (x2 - x1) / 2
        path = f"M{x1:.1f} {y1:.1f}C{x1 + bend:.1f} {y1:.1f} {x2 - bend:.1f} {y2:.1f} {x2:.1f} {y2:.1f}"
        tip = f"M{x2:.1f} {y2 - 3.5:.1f}v7l5 -3.5z"
    return Markup('<path class="arrow" d="{}"/><path class="tip" d="{}"/>').format(path, tip)


def _node(node: Node, corner: tuple[float, float], width: float) -> Markup:
    x, y = corner
    letters = max(4, int((width - 14) / _LETTER_PX))
    name = node.name if len(node.name) <= letters else node.name[: letters - 1] + "…"
    return Markup(
        '<g class="node {}"><title>{}</title><rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{}" rx="4"/>'
        '<text class="name" x="{:.1f}" y="{:.1f}">{}</text><text class="what" x="{:.1f}" y="{:.1f}">{}</text></g>'
    ).format(
        node.state, node.title, x, y, width, _NODE_HEIGHT,
        x + 9, y + 18, name, x + 9, y + 35, node.below,
    )  # fmt: skip


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
