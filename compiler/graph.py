"""The stage graph: stages are nodes, `needs` are edges."""

from collections.abc import Iterable, Iterator

import networkx as nx

from trainwright.spec.plan import AnyStage


class StageGraph:
    """Stages in an order in which they can be executed; the same for the same stages in the same given order.

    Raises ValueError if a name is taken twice, a need is unknown, or the needs form a cycle.
    """

    def __init__(self, stages: Iterable[AnyStage]) -> None:
        given = tuple(stages)
        place = {stage.name: index for index, stage in enumerate(given)}
        if len(place) != len(given):
            raise ValueError("two stages have the same name")
        self._graph = nx.DiGraph()
        self._graph.add_nodes_from((stage.name, {"stage": stage}) for stage in given)
        for stage in given:
            for need in stage.needs:
                if need not in place:
                    raise ValueError(f"stage `{stage.name}` needs `{need}`, which does not exist")
                self._graph.add_edge(need, stage.name)
        if not nx.is_directed_acyclic_graph(self._graph):
            raise ValueError("the stages need each other in a circle")
        order = nx.lexicographical_topological_sort(self._graph, key=place.__getitem__)
        self.stages: tuple[AnyStage, ...] = tuple(self._graph.nodes[name]["stage"] for name in order)

    def __iter__(self) -> Iterator[AnyStage]:
        return iter(self.stages)

    def __getitem__(self, name: str) -> AnyStage:
        stage: AnyStage = self._graph.nodes[name]["stage"]
        return stage

    def edges(self) -> list[tuple[str, str]]:
        """(need, stage), in the order of the stages."""
        return [(need, stage.name) for stage in self.stages for need in stage.needs]

    def direct_edges(self) -> list[tuple[str, str]]:
        """The edges that no longer path already implies: what a drawing shows."""
        reduced = nx.transitive_reduction(self._graph)
        return [edge for edge in self.edges() if reduced.has_edge(*edge)]

    def downstream(self, name: str) -> set[str]:
        """The stages whose result depends on the named one."""
        return set(nx.descendants(self._graph, name))
