"""The stage graph: stages are nodes, `needs` are edges."""

from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from heapq import heapify, heappop, heappush

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
        for stage in given:
            for need in stage.needs:
                if need not in place:
                    raise ValueError(f"stage `{stage.name}` needs `{need}`, which does not exist")
        self.stages: tuple[AnyStage, ...] = tuple(_in_order(given, place))
        self._stages = {stage.name: stage for stage in self.stages}

    def __iter__(self) -> Iterator[AnyStage]:
        return iter(self.stages)

    def __getitem__(self, name: str) -> AnyStage:
        return self._stages[name]

    def edges(self) -> list[tuple[str, str]]:
        """(need, stage), in the order of the stages."""
        return [(need, stage.name) for stage in self.stages for need in stage.needs]

    def direct_edges(self) -> list[tuple[str, str]]:
        """The edges that no longer path already implies: what a drawing shows."""
        import networkx as nx  # 80 ms that only a drawing need spend

        reduced = nx.transitive_reduction(nx.DiGraph(self.edges()))
        return [edge for edge in self.edges() if reduced.has_edge(*edge)]

    def downstream(self, name: str) -> set[str]:
        """The stages whose result depends on the named one."""
        found: set[str] = set()
        for stage in self.stages:
            if not found.isdisjoint(stage.needs) or name in stage.needs:
                found.add(stage.name)
        return found


def _in_order(given: tuple[AnyStage, ...], place: dict[str, int]) -> Iterator[AnyStage]:
    """Each stage after what it needs, and of those that can be next the one given first."""
    sorter = TopologicalSorter({stage.name: stage.needs for stage in given})
    try:
        sorter.prepare()
    except CycleError as error:
        raise ValueError("the stages need each other in a circle") from error
    ready = [place[name] for name in sorter.get_ready()]
    heapify(ready)
    while ready:
        stage = given[heappop(ready)]
        yield stage
        sorter.done(stage.name)
        for name in sorter.get_ready():
            heappush(ready, place[name])
