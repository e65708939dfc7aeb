"""Every axis of every layout divides what it cuts."""

from collections.abc import Iterator

from trainwright.compiler.draft import Check, Draft
from trainwright.compiler.nearest import either, nearest_numbers
from trainwright.spec.diagnostics import Diagnostic


def check_layouts(draft: Draft) -> Iterator[Diagnostic]:
    for index in range(len(draft.topologies)):
        yield from _tensor(draft, index)
        yield from _pipeline(draft, index)
        yield from _sequence(draft, index)
        yield from _idle(draft, index)


def _tensor(draft: Draft, index: int) -> Iterator[Diagnostic]:
    model = draft.model
    tensor = draft.topologies[index].tensor
    where = draft.value_at(*draft.topology_path(index, "tensor"))
    for key, code in (("heads", "TW302"), ("kv_heads", "TW302"), ("ffn_size", "TW303"), ("vocab_size", "TW304")):
        size = getattr(model, key)
        if size % tensor == 0:
            continue
        sizes = nearest_numbers(tensor, lambda n: all(each % n == 0 for each in (model.heads, model.kv_heads)))
        cure = f"take `tensor` {either(sizes)}" if sizes else f"choose a `{key}` that is a multiple of {tensor:,}"
        if code == "TW304":
            cure = f"pad the vocabulary to {-(-size // tensor) * tensor:,}, or to a multiple of 128 x `tensor`"
            cure += f": {-(-size // (128 * tensor)) * 128 * tensor:,}"
        elif code == "TW303":
            cure = f"the nearest `ffn_size` that work are {either(nearest_numbers(size, lambda n: n % tensor == 0))}"
        label = draft.label(f"to be cut into {tensor:,}", "model", key)
        yield Diagnostic(code, f"`{key}` {size:,} is not divisible by `tensor` {tensor:,}", where, cure, label)
        if code == "TW302":
            return


def _pipeline(draft: Draft, index: int) -> Iterator[Diagnostic]:
    topology = draft.topologies[index]
    pipeline, chunks, layers = topology.pipeline, topology.virtual_pipeline, draft.model.layers
    virtual = draft.value_at(*draft.topology_path(index, "virtual_pipeline"))
    if chunks > 1 and pipeline == 1:
        message = f"`virtual_pipeline` {chunks:,} does nothing without a pipeline"
        yield Diagnostic("TW309", message, virtual, "set `pipeline` to 2 or more, or leave `virtual_pipeline` out")
    elif layers % (pipeline * chunks):
        cut = pipeline * chunks
        said = f"`pipeline` {pipeline:,}" + (f" x `virtual_pipeline` {chunks:,} = {cut:,}" if chunks > 1 else "")
        near = nearest_numbers(pipeline, lambda n: layers % (n * chunks) == 0)
        where = draft.value_at(*draft.topology_path(index, "pipeline"))
        cure = f"take `pipeline` {either(near)}" if near else f"take a `virtual_pipeline` that divides {layers:,}"
        label = draft.label(f"{layers:,} layers", "model", "layers")
        yield Diagnostic("TW305", f"{layers:,} `layers` are not divisible by {said}", where, cure, label)
    if topology.schedule == "interleaved" and chunks == 1:
        where = draft.value_at(*draft.topology_path(index, "schedule"))
        message = "the interleaved schedule needs several model chunks a rank"
        yield Diagnostic("TW312", message, where, "set `virtual_pipeline` to 2 or more, or leave `schedule` out")
    if topology.schedule == "1f1b" and chunks > 1 and pipeline > 1:
        where = draft.value_at(*draft.topology_path(index, "schedule"))
        message = f"`virtual_pipeline` {chunks:,} runs by the interleaved schedule, not by 1f1b"
        yield Diagnostic("TW312", message, where, "leave one of the two out")


def _sequence(draft: Draft, index: int) -> Iterator[Diagnostic]:
    topology = draft.topologies[index]
    length = draft.spec.phases[index].sequence_length
    where = draft.value_at("phases", index, "sequence_length")
    context = topology.context
    if context > 1 and length % (2 * context):
        near = nearest_numbers(length, lambda n: n % (2 * context) == 0)
        yield Diagnostic(
            "TW306",
            f"`sequence_length` {length:,} is not divisible by 2 x `context` {context:,}",
            where,
            f"each context rank holds two slices: take {either(near)}",
            draft.label(f"context {context:,}", *draft.topology_path(index, "context")),
        )
    elif topology.tensor > 1 and topology.sequence_parallel and length // context % topology.tensor:
        cut = context * topology.tensor
        near = nearest_numbers(length, lambda n: n % cut == 0 and (context == 1 or n % (2 * context) == 0))
        by = f"`context` {context:,} x `tensor` {topology.tensor:,}" if context > 1 else f"`tensor` {topology.tensor:,}"
        yield Diagnostic(
            "TW307",
            f"`sequence_length` {length:,} is not divisible by {by}, as sequence parallelism needs",
            where,
            f"take {either(near)}, or set `sequence_parallel = false`",
            draft.label(f"tensor {topology.tensor:,}", *draft.topology_path(index, "tensor")),
        )


def _idle(draft: Draft, index: int) -> Iterator[Diagnostic]:
    """A key that does nothing is a mistake."""
    topology = draft.topologies[index]
    if topology.sequence_parallel is True and topology.tensor == 1:
        where = draft.value_at(*draft.topology_path(index, "sequence_parallel"))
        message = "`sequence_parallel = true` does nothing with `tensor` 1"
        yield Diagnostic("TW313", message, where, "leave it out: it comes on by itself with `tensor` above 1")
    if topology.zero_group is not None and topology.zero == 0:
        where = draft.value_at(*draft.topology_path(index, "zero_group"))
        yield Diagnostic("TW314", "`zero_group` does nothing with `zero = 0`", where, "set `zero = 1`, or leave it out")


CHECK_LAYOUTS = Check(check_layouts, needs=("spec.phases", "model", "topologies"), holds="layouts fit the model")
