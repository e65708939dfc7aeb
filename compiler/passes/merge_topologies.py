"""Each phase's topology: the spec's, with what the phase itself states in its place."""

import msgspec

from trainwright.compiler.draft import Draft, Pass
from trainwright.spec.auto import AUTO_KEYS, SEARCHED_KEYS
from trainwright.spec.spec import Phase, Topology


def merge_topologies(draft: Draft) -> None:
    """Where a search is asked for and no phase leaves anything to it, it gets all that nobody wrote."""
    merged = tuple(_merged(draft.spec.topology, phase) for phase in draft.spec.phases)
    asked = draft.request is not None
    draft.opened = asked and not any(getattr(each, key) == "auto" for each in merged for key in SEARCHED_KEYS)
    if draft.opened:
        merged = tuple(_opened(draft, index, topology) for index, topology in enumerate(merged))
    draft.open_topologies = merged


def _merged(topology: Topology, phase: Phase) -> Topology:
    own = msgspec.structs.asdict(phase.topology)
    return msgspec.structs.replace(topology, **{key: value for key, value in own.items() if value is not None})


def _opened(draft: Draft, index: int, topology: Topology) -> Topology:
    unwritten = [key for key in AUTO_KEYS if draft.origins.at(draft.topology_path(index, key)).kind == "default"]
    return msgspec.structs.replace(topology, **dict.fromkeys(unwritten, "auto"))


MERGE_TOPOLOGIES = Pass(
    merge_topologies,
    needs=(
        "spec.phases",
        "spec.topology",
    ),
    gives=("open_topologies", "opened"),
)
