"""Each phase's topology: the spec's, with what the phase itself states in its place."""

import msgspec

from trainwright.compiler.draft import Draft, Pass
from trainwright.spec.spec import Phase, Topology


def merge_topologies(draft: Draft) -> None:
    draft.topologies = tuple(_merged(draft.spec.topology, phase) for phase in draft.spec.phases)


def _merged(topology: Topology, phase: Phase) -> Topology:
    own = msgspec.structs.asdict(phase.topology)
    return msgspec.structs.replace(topology, **{key: value for key, value in own.items() if value is not None})


MERGE_TOPOLOGIES = Pass(
    merge_topologies,
    needs=(
        "spec.phases",
        "spec.topology",
    ),
    gives=("topologies",),
)
