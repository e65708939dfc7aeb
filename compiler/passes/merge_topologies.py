"""Each phase's topology: the spec's, with what the phase itself states in its place, in our own words."""

from typing import Any

import msgspec

from trainwright.compiler.draft import Draft, Pass
from trainwright.spec.auto import AUTO_KEYS, SEARCHED_KEYS
from trainwright.spec.spec import Phase
from trainwright.spec.topology import Topology


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
    merged = msgspec.structs.replace(topology, **{key: value for key, value in own.items() if value is not None})
    return msgspec.structs.replace(merged, **_in_our_words(merged))


def _in_our_words(topology: Topology) -> dict[str, Any]:
    """What InternEvo's `tensor.mode` means: see docs/internevo.md. `check_layout_options` finds contradictions."""
    if topology.tensor_mode == "isp":  # its tensor ranks hold whole weights and split the sequence
        return {"tensor": 1, "context": topology.tensor}
    if topology.tensor_mode == "mtp":
        return {"sequence_parallel": False}
    if topology.tensor_mode in ("msp", "fsp") and topology.tensor != 1 and topology.sequence_parallel == "auto":
        return {"sequence_parallel": True}
    return {}


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
