"""Each phase's topology with the sizes that the search chose."""

import msgspec

from trainwright.compiler.draft import Draft, Pass, SizedTopology
from trainwright.spec.auto import AUTO_KEYS


def size_topologies(draft: Draft) -> None:
    draft.topologies = tuple(_sized(draft, index) for index in range(len(draft.open_topologies)))


def _sized(draft: Draft, index: int) -> SizedTopology:
    values = msgspec.structs.asdict(draft.open_topologies[index])
    if draft.search is not None and index in draft.search.choices:
        layout = draft.search.choices[index].candidate.layout
        chosen = {key: getattr(layout, key) for key in AUTO_KEYS if values[key] == "auto"}
        values |= chosen
        if layout.zero == 0:  # there is no group then; the layout says 1
            values["zero_group"] = None
        if layout.tensor == 1 and "sequence_parallel" in chosen:
            values["sequence_parallel"] = "auto"
    return SizedTopology(**values)


SIZE_TOPOLOGIES = Pass(
    size_topologies,
    needs=("open_topologies", "search", "layouts are chosen"),
    gives=("topologies",),
)
