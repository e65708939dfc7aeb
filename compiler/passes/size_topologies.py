"""Each phase's topology with the sizes that the search chose."""

import msgspec

from trainwright.compiler.draft import Draft, Pass, SizedTopology
from trainwright.spec.auto import AUTO_KEYS


def size_topologies(draft: Draft) -> None:
    draft.topologies = tuple(_sized(draft, index) for index in range(len(draft.open_topologies)))


def _sized(draft: Draft, index: int) -> SizedTopology:
    values = msgspec.structs.asdict(draft.open_topologies[index])
    left_open = [key for key in AUTO_KEYS if values[key] == "auto"]
    if draft.search is not None and index in draft.search.choices:
        layout = draft.search.choices[index].candidate.layout
        values |= {key: getattr(layout, key) for key in left_open}
        if layout.tensor == 1 and "sequence_parallel" in left_open:
            values["sequence_parallel"] = "auto"
    if values["zero"] == 0 and "zero_group" in left_open:  # there is no group then
        values["zero_group"] = None
    return SizedTopology(**values)


SIZE_TOPOLOGIES = Pass(
    size_topologies,
    needs=("open_topologies", "search", "layouts are chosen"),
    gives=("topologies",),
)
