"""What each stage of alignment does, and on which ranks.

A stage's topology is `[topology]`; SFT's is that of the phase it starts from, for its sequences are as long. Nothing is
searched for: a size that `[topology]` leaves open is the one found for the first phase. As few sequences a step do not
fill a cluster, the data axis is the largest that they do fill; ranks beyond it stay idle, which the plan says.
"""

from math import gcd

import msgspec

from trainwright.compiler.alignment import kinds_of, root_phase, start_of_kind, table_of
from trainwright.compiler.draft import AlignmentCourse, AlignmentKind, Draft, Pass, SizedTopology
from trainwright.spec.alignment import Dpo, Ppo, Reward, Sft


def resolve_alignment(draft: Draft) -> None:
    draft.alignment = {kind: _course(draft, kind) for kind in kinds_of(draft)}


def _course(draft: Draft, kind: AlignmentKind) -> AlignmentCourse:
    table, phase = table_of(draft, kind), root_phase(draft, kind)
    assert table is not None
    length, longest, sequences = _sizes(draft, table, phase)
    topology = _topology(draft, kind, table, phase)
    ranks = draft.spec.cluster.nodes * draft.spec.cluster.gpus_per_node
    if isinstance(table, Ppo) and table.placement == "split":
        ranks //= 2
    free = ranks // (topology.tensor * topology.pipeline * topology.context)
    data = topology.data if topology.data != "auto" else _largest_divisor(sequences, free)
    if topology.zero_group is not None and table.topology.zero_group is None:
        topology = msgspec.structs.replace(topology, zero_group=gcd(topology.zero_group, max(1, data)))
    return AlignmentCourse(
        kind=kind,
        phase=phase,
        start_from=start_of_kind(draft, kind),
        topology=topology,
        data=data,
        sequence_length=length,
        longest=longest,
        sequences_per_step=sequences,
    )


def _sizes(draft: Draft, table: Sft | Reward | Ppo | Dpo, phase: int) -> tuple[int, int, int]:
    """Length of a row, of the longest conversation, and rows a step. A row of pairs holds the longest pair."""
    before = draft.spec.phases[phase].sequence_length
    sft = draft.spec.alignment.sft
    if table is not sft and sft is not None and sft.sequence_length is not None:
        before = sft.sequence_length
    longest = table.sequence_length or before
    if isinstance(table, Sft):
        return longest, longest, (table.tokens_per_step or draft.courses[phase].tokens_per_step) // longest
    if isinstance(table, Ppo):
        return longest, longest, table.queries_per_iteration
    length = min(table.tokens_per_batch, 2 * longest)
    return length, longest, table.tokens_per_batch // length


def _topology(draft: Draft, kind: AlignmentKind, table: Sft | Reward | Ppo | Dpo, phase: int) -> SizedTopology:
    base = draft.topologies[phase if kind == "sft" else 0]
    if kind != "sft":  # `[topology]` itself, but for what it leaves to the search
        written = msgspec.structs.asdict(draft.spec.topology)
        sized = msgspec.structs.asdict(base)
        values = {key: sized[key] if value == "auto" else value for key, value in written.items()}
        base = SizedTopology(**values)
    # The data axis and the micro-batch are of the stage's own sequences.
    base = msgspec.structs.replace(base, data="auto", micro_batch="auto")
    own = {key: value for key, value in msgspec.structs.asdict(table.topology).items() if value is not None}
    return msgspec.structs.replace(base, **own)


def _largest_divisor(number: int, limit: int) -> int:
    return max((n for n in range(1, min(number, limit) + 1) if number % n == 0), default=0)


RESOLVE_ALIGNMENT = Pass(
    resolve_alignment,
    needs=(
        "spec.alignment",
        "spec.cluster",
        "spec.phases",
        "spec.topology",
        "courses",
        "topologies",
        "alignment is sound",
    ),
    gives=("alignment",),
)
