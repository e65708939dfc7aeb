"""A step's sequences go evenly to the ranks and their micro-batches."""

from collections.abc import Iterator

from trainwright.compiler.batching import choose_micro_batch
from trainwright.compiler.chain import owner_of
from trainwright.compiler.draft import Check, Draft
from trainwright.compiler.nearest import either, nearest_numbers
from trainwright.spec.diagnostics import Diagnostic


def check_batches(draft: Draft) -> Iterator[Diagnostic]:
    for index in range(len(draft.topologies)):
        yield from _batches(draft, index)
        yield from _zero_group(draft, index)


def _batches(draft: Draft, index: int) -> Iterator[Diagnostic]:
    phase, course, topology = draft.spec.phases[index], draft.courses[index], draft.topologies[index]
    data, sequences, length = draft.data_ranks[index], course.sequences_per_step, phase.sequence_length
    per_rank, rest = divmod(sequences, data)
    if rest:
        near = [n * length for n in nearest_numbers(sequences, lambda n: n % data == 0)]
        owner = owner_of(draft.spec.phases, index, "tokens_per_step")
        own = owner in (None, index)
        yield Diagnostic(
            "TW308",
            f"{sequences:,} sequences a step of `{phase.name}` are not divisible by {data:,} data-parallel ranks",
            draft.value_at("phases", index, "tokens_per_step" if own else "sequence_length"),
            f"take `tokens_per_step` {either(near)}, or larger other axes, so that fewer ranks share the data",
            () if owner is None or own else draft.label("its steps", "phases", owner, "tokens_per_step"),
        )
        return
    pipeline, chunks = topology.pipeline, topology.virtual_pipeline
    micro_batch = topology.micro_batch
    where = draft.value_at(*draft.topology_path(index, "micro_batch"))
    if micro_batch != "auto" and per_rank % micro_batch:
        near = nearest_numbers(micro_batch, lambda n: per_rank % n == 0)
        yield Diagnostic(
            "TW308",
            f"the {per_rank:,} sequences of a rank's step are not divisible by `micro_batch` {micro_batch:,}",
            where,
            f"take `micro_batch` {either(near)}",
        )
        return
    if pipeline == 1 or chunks == 1:
        return
    if micro_batch == "auto":
        micro_batch = choose_micro_batch(per_rank, length, pipeline, chunks) or 1
    micro_batches = per_rank // micro_batch
    if micro_batches % pipeline:
        unit = data * length * micro_batch
        near = [n * unit for n in nearest_numbers(micro_batches, lambda n: n % pipeline == 0)]
        yield Diagnostic(
            "TW310",
            f"{micro_batches:,} micro-batches a step are not a multiple of `pipeline` {pipeline:,}, "
            "as the interleaved schedule needs",
            draft.value_at(*draft.topology_path(index, "virtual_pipeline")),
            f"take `tokens_per_step` {either(near)}, or `virtual_pipeline = 1`",
        )


def _zero_group(draft: Draft, index: int) -> Iterator[Diagnostic]:
    group, data = draft.topologies[index].zero_group, draft.data_ranks[index]
    if group is not None and data % group:
        near = nearest_numbers(group, lambda n: data % n == 0)
        yield Diagnostic(
            "TW311",
            f"`zero_group` {group:,} does not divide the {data:,} data-parallel ranks",
            draft.value_at(*draft.topology_path(index, "zero_group")),
            f"take `zero_group` {either(near)}" if near else "leave it out",
        )


CHECK_BATCHES = Check(
    check_batches,
    needs=(
        "spec.phases",
        "courses",
        "topologies",
        "data_ranks",
    ),
    holds="batches are whole",
)
