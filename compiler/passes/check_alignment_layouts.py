"""The layouts of alignment's stages divide what they cut, also what they take over from `[topology]`."""

from collections.abc import Iterator

from trainwright.compiler.alignment import table_of
from trainwright.compiler.batching import choose_micro_batch
from trainwright.compiler.draft import AlignmentCourse, AlignmentKind, Check, Draft
from trainwright.compiler.nearest import either, nearest_numbers
from trainwright.spec.alignment import Ppo, Sft
from trainwright.spec.diagnostics import Diagnostic, KeyPath


def check_alignment_layouts(draft: Draft) -> Iterator[Diagnostic]:
    for kind, course in draft.alignment.items():
        found = list(_rows(draft, kind, course)) or list(_axes(draft, kind, course))
        yield from found
        if not found:
            yield from _sequence(draft, kind, course)
            yield from _batch(draft, kind, course)


def _path(draft: Draft, kind: AlignmentKind, key: str) -> KeyPath:
    """Where the stage takes this value from: its own table or the spec's."""
    table = table_of(draft, kind)
    own = table is not None and getattr(table.topology, key) is not None
    return ("alignment", kind, "topology", key) if own else ("topology", key)


def _rows(draft: Draft, kind: AlignmentKind, course: AlignmentCourse) -> Iterator[Diagnostic]:
    """A step is whole rows, and a row has room for a query before its answer."""
    table = table_of(draft, kind)
    if isinstance(table, Ppo):
        if table.max_new_tokens >= course.longest:
            yield Diagnostic(
                "TW263",
                f"answers of {table.max_new_tokens:,} tokens leave no room for a query in {course.longest:,}",
                draft.value_at("alignment", "ppo", "max_new_tokens"),
                "shorten the answers, or take a larger `sequence_length`",
                draft.label("query and answer", "alignment", "ppo", "sequence_length"),
            )
        return
    if isinstance(table, Sft):
        key, tokens = "tokens_per_step", table.tokens_per_step or draft.courses[course.phase].tokens_per_step
    else:
        assert table is not None
        key, tokens = "tokens_per_batch", table.tokens_per_batch
    row = course.sequence_length
    if tokens % row:
        near = sorted({max(row, tokens // row * row), -(-tokens // row) * row})
        message = f"`{key}` {tokens:,} is not a whole number of rows of {row:,} tokens"
        yield Diagnostic("TW241", message, draft.value_at("alignment", kind, key), f"take {either(near)}")


def _axes(draft: Draft, kind: AlignmentKind, course: AlignmentCourse) -> Iterator[Diagnostic]:
    topology, model = course.topology, draft.model
    ranks = draft.spec.cluster.nodes * draft.spec.cluster.gpus_per_node
    ppo = draft.spec.alignment.ppo
    half = kind == "ppo" and ppo is not None and ppo.placement == "split"
    own = topology.tensor * topology.pipeline * topology.context * max(1, course.data)
    if course.data == 0 or own * (2 if half else 1) > ranks:
        where = draft.value_at(*_path(draft, kind, "tensor" if topology.tensor > 1 else "context"))
        said = f"a layout of {own:,} ranks" + (", twice," if half else "")
        message = f"{said} for `{kind}` is more than the cluster's {ranks:,}"
        yield Diagnostic("TW301", message, where, "take smaller axes, or a larger cluster")
        return
    for key, code in (("heads", "TW302"), ("kv_heads", "TW302"), ("ffn_size", "TW303"), ("vocab_size", "TW304")):
        size = getattr(model, key)
        if size % topology.tensor:
            where = draft.value_at(*_path(draft, kind, "tensor"))
            near = nearest_numbers(topology.tensor, lambda n: size % n == 0)  # noqa: B023
            message = f"`{key}` {size:,} is not divisible by `tensor` {topology.tensor:,} of `{kind}`"
            yield Diagnostic(code, message, where, f"take `tensor` {either(near)}")
            return
    cut = topology.pipeline * topology.virtual_pipeline
    if model.layers % cut:
        where = draft.value_at(*_path(draft, kind, "pipeline"))
        near = nearest_numbers(topology.pipeline, lambda n: model.layers % (n * topology.virtual_pipeline) == 0)
        message = f"{model.layers:,} `layers` are not divisible by the {cut:,} model chunks of `{kind}`"
        yield Diagnostic("TW305", message, where, f"take `pipeline` {either(near)}")


def _sequence(draft: Draft, kind: AlignmentKind, course: AlignmentCourse) -> Iterator[Diagnostic]:
    """Rows are cut as a phase's sequences are."""
    context, length = course.topology.context, course.sequence_length
    unit = 2 * context if context > 1 else 1
    if course.topology.tensor > 1 and course.topology.sequence_parallel is not False:
        unit = max(unit, context * course.topology.tensor)
    if length % unit:
        key = "tokens_per_batch" if kind in ("reward", "dpo") else "sequence_length"
        where = draft.value_at("alignment", kind, key)
        near = nearest_numbers(length, lambda n: n % unit == 0)
        message = f"rows of {length:,} tokens of `{kind}` are not divisible by {unit:,}, as its layout needs"
        yield Diagnostic("TW306", message, where, f"rows of {either(near)} are")


def _batch(draft: Draft, kind: AlignmentKind, course: AlignmentCourse) -> Iterator[Diagnostic]:
    per_rank, rest = divmod(course.sequences_per_step, course.data)
    where = draft.value_at(*_path(draft, kind, "data"))
    if rest:
        near = nearest_numbers(course.data, lambda n: course.sequences_per_step % n == 0)
        message = f"{course.sequences_per_step:,} rows a step of `{kind}` do not go evenly to {course.data:,} ranks"
        yield Diagnostic("TW308", message, where, f"take `data` {either(near)}")
        return
    table = table_of(draft, kind)
    if isinstance(table, Ppo) and per_rank % table.mini_batches:
        message = f"the {per_rank:,} answers of a rank are not divisible by `mini_batches` {table.mini_batches:,}"
        where = draft.value_at("alignment", "ppo", "mini_batches")
        yield Diagnostic("TW308", message, where, "take a divisor, or fewer data-parallel ranks")
        return
    micro_batch = course.topology.micro_batch
    if micro_batch != "auto" and per_rank % micro_batch:
        near = nearest_numbers(micro_batch, lambda n: per_rank % n == 0)
        message = f"the {per_rank:,} rows of a rank of `{kind}` are not divisible by `micro_batch` {micro_batch:,}"
        yield Diagnostic("TW308", message, draft.value_at(*_path(draft, kind, "micro_batch")), f"take {either(near)}")
    yield from _interleaved(draft, kind, course, per_rank)
    group = course.topology.zero_group
    if group is not None and course.data % group:
        near = nearest_numbers(group, lambda n: course.data % n == 0)
        message = f"`zero_group` {group:,} does not divide the {course.data:,} data-parallel ranks of `{kind}`"
        yield Diagnostic("TW311", message, draft.value_at(*_path(draft, kind, "zero_group")), f"take {either(near)}")


def _interleaved(draft: Draft, kind: AlignmentKind, course: AlignmentCourse, per_rank: int) -> Iterator[Diagnostic]:
    """Several model chunks a rank need a multiple of `pipeline` micro-batches."""
    topology = course.topology
    pipeline, chunks, micro_batch = topology.pipeline, topology.virtual_pipeline, topology.micro_batch
    if pipeline == 1 or chunks == 1:
        return
    if micro_batch == "auto":
        micro_batch = choose_micro_batch(per_rank, course.sequence_length, pipeline, chunks) or 1
    if per_rank // micro_batch % pipeline:
        message = f"the {per_rank // micro_batch:,} micro-batches of a rank of `{kind}` are not a multiple of "
        message += f"`pipeline` {pipeline:,}, as the interleaved schedule needs"
        where = draft.value_at(*_path(draft, kind, "virtual_pipeline"))
        cure = f"write `topology = {{ virtual_pipeline = 1 }}` in `[alignment.{kind}]`, or take more rows a step"
        yield Diagnostic("TW310", message, where, cure)


CHECK_ALIGNMENT_LAYOUTS = Check(
    check_alignment_layouts,
    needs=("spec.alignment", "spec.cluster", "model", "courses", "alignment"),
    holds="alignment can be laid out",
)
