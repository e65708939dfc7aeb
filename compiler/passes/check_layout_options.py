"""Keys of a layout that depend on another key do something, and InternEvo's words do not contradict ours."""

from collections.abc import Iterator

from trainwright.compiler.draft import Check, Draft
from trainwright.compiler.exchange import context_exchange, head_ranks
from trainwright.compiler.nearest import either, nearest_numbers
from trainwright.spec.diagnostics import Diagnostic, KeyPath, Label


def check_layout_options(draft: Draft) -> Iterator[Diagnostic]:
    for index in range(len(draft.topologies)):
        yield from _recompute(draft, index)
        yield from _tensor_mode(draft, index)
        yield from _weight(draft, index)
        yield from _context_exchange(draft, index)


def _recompute(draft: Draft, index: int) -> Iterator[Diagnostic]:
    topology = draft.topologies[index]
    for key, mode in (("recompute_modules", "selective"), ("recompute_layers", "full")):
        if getattr(topology, key) is not None and topology.recompute != mode:
            yield Diagnostic(
                "TW315",
                f'`{key}` does nothing with `recompute = "{topology.recompute}"`',
                draft.key_at(*draft.topology_path(index, key)),
                f'set `recompute = "{mode}"`, or leave it out',
                draft.label(f"not `{mode}`", *draft.topology_path(index, "recompute")),
            )
    modules = topology.recompute_modules or ()
    for place, module in enumerate(modules):
        if module in modules[:place] or (module == "activation" and "mlp" in modules):
            where = draft.value_at(*draft.topology_path(index, "recompute_modules"), place)
            covered = "the whole `mlp` is made again" if module == "activation" else "it stands there already"
            yield Diagnostic("TW315", f"`{module}` adds nothing: {covered}", where, "leave one of the two out")
    held = draft.model.layers // (topology.pipeline * topology.virtual_pipeline)
    if topology.recompute == "full" and (topology.recompute_layers or 0) > held:
        yield Diagnostic(
            "TW319",
            f"`recompute_layers` {topology.recompute_layers:,} is more than the {held:,} layers of a model chunk",
            draft.value_at(*draft.topology_path(index, "recompute_layers")),
            f"take {held:,} or fewer; left out, all are made again",
        )


def _tensor_mode(draft: Draft, index: int) -> Iterator[Diagnostic]:
    """The topology is in our words by now, so what was written is asked of the origins."""
    topology = draft.topologies[index]
    mode = topology.tensor_mode
    where = draft.value_at(*draft.topology_path(index, "tensor_mode"))
    if mode in ("msp", "fsp"):
        if topology.tensor == 1:
            message = f'`tensor_mode = "{mode}"` does nothing with `tensor` 1'
            yield Diagnostic("TW316", message, where, "set `tensor` to 2 or more, or leave it out")
        elif topology.sequence_parallel is False:
            message = f'`tensor_mode = "{mode}"` is sequence parallelism, which is off'
            label = draft.label("off", *draft.topology_path(index, "sequence_parallel"))
            yield Diagnostic("TW316", message, where, "leave `sequence_parallel` out", label)
    if mode == "isp" and topology.context_exchange not in ("auto", "all_to_all"):
        label = draft.label("another way", *draft.topology_path(index, "context_exchange"))
        message = '`tensor_mode = "isp"` exchanges heads for tokens'
        yield Diagnostic("TW316", message, where, "leave `context_exchange` out", label)
    key = {"mtp": "sequence_parallel", "isp": "context"}.get(mode or "")
    if key is not None and (written := _written(draft, index, key)):
        says = {"mtp": "has no sequence parallelism", "isp": "splits the sequence by `tensor` already"}[mode or ""]
        cure = "leave one of the two out"
        yield Diagnostic("TW316", f'`tensor_mode = "{mode}"` {says}', where, cure, written)


def _written(draft: Draft, index: int, key: str) -> tuple[Label, ...]:
    """A label at a value that asks for something, if one is written."""
    phase, spec = draft.spec.phases[index].topology, draft.spec.topology
    own = getattr(phase, key) is not None
    value = getattr(phase if own else spec, key)
    path = ("phases", index, "topology", key) if own else ("topology", key)
    asks = value is True if key == "sequence_parallel" else value not in (1, "auto")
    return draft.label("written here", *path) if asks else ()


def _weight(draft: Draft, index: int) -> Iterator[Diagnostic]:
    topology, weight = draft.topologies[index], draft.topologies[index].weight
    if weight == 1:
        return
    where = draft.value_at(*draft.topology_path(index, "weight"))
    if topology.tensor_mode != "isp":
        cure = 'set `tensor_mode = "isp"`, or take `zero = 3`, which shards weights over the data axis'
        yield Diagnostic("TW317", f"`weight` {weight:,} belongs to `tensor_mode` isp", where, cure)
        return
    if topology.zero == 3:
        label = draft.label("here", *draft.topology_path(index, "zero"))
        message = f"`weight` {weight:,} and `zero = 3` both cut the weights"
        yield Diagnostic("TW317", message, where, "leave one of the two out", label)
        return
    data = draft.data_ranks[index]
    ranks = topology.context * ((topology.zero_group or data) if topology.zero else data)
    if ranks % weight:
        shared = "share the optimizer's state" if topology.zero else "hold the same weights"
        near = either(nearest_numbers(weight, lambda n: ranks % n == 0))
        message = f"`weight` {weight:,} does not divide the {ranks:,} ranks that {shared}"
        yield Diagnostic("TW318", message, where, f"take `weight` {near}")


def _context_exchange(draft: Draft, index: int) -> Iterator[Diagnostic]:
    topology = draft.topologies[index]
    for key, default in (("context_exchange", "auto"), ("context_heads", 1)):
        path = draft.topology_path(index, key)
        if getattr(topology, key) != default and index == _with(draft, path)[0] and _stays_whole(draft, path):
            yield Diagnostic(
                "TW322",
                f"`{key}` does nothing with `context` 1",
                draft.key_at(*path),
                "set `context` to 2 or more, or leave it out",
            )
    if topology.context == 1:
        return
    heads = draft.model.heads // topology.tensor
    ranks = head_ranks(topology, topology.context)
    contradiction = _context_heads(draft, index, heads)
    if contradiction is not None:
        yield contradiction
    elif heads % ranks:
        key = "context_heads" if topology.context_heads > 1 else "context"
        near = either(nearest_numbers(ranks, lambda n: heads % n == 0))
        by_all = f'`all_to_all` exchanges heads: take {near}, or `context_exchange = "gather"`'
        yield Diagnostic(
            "TW323",
            f"the {heads:,} heads of a tensor rank cannot be shared by {ranks:,} context ranks",
            draft.value_at(*draft.topology_path(index, key)),
            by_all if key == "context" else f"take `context_heads` {near}",
        )


def _context_heads(draft: Draft, index: int, heads: int) -> Diagnostic | None:
    """What is wrong with the groups that exchange the `heads` of a tensor rank."""
    topology, ranks = draft.topologies[index], draft.topologies[index].context_heads
    where = draft.value_at(*draft.topology_path(index, "context_heads"))
    if topology.context % ranks:
        near = either(nearest_numbers(ranks, lambda n: topology.context % n == 0 and heads % n == 0))
        message = f"`context_heads` {ranks:,} does not divide the {topology.context:,} context ranks"
        return Diagnostic("TW324", message, where, f"take `context_heads` {near}")
    if ranks not in (1, topology.context) and context_exchange(topology) == "all_to_all":
        key = "tensor_mode" if topology.tensor_mode == "isp" else "context_exchange"
        message = f"`context_heads` {ranks:,} is of no use where all {topology.context:,} context ranks exchange heads"
        label = draft.label("they do here", *draft.topology_path(index, key))
        cure = 'leave it out, or take `context_exchange = "ring"` between groups of so many'
        return Diagnostic("TW325", message, where, cure, label)
    return None


def _with(draft: Draft, path: KeyPath) -> list[int]:
    """The phases that take this key of their topology from there."""
    key = str(path[-1])
    return [index for index in range(len(draft.topologies)) if draft.topology_path(index, key) == path]


def _stays_whole(draft: Draft, path: KeyPath) -> bool:
    """Whether no phase that takes its key from there splits a sequence, nor left that to the search."""
    mine = _with(draft, path)
    return all(draft.topologies[i].context == 1 and draft.open_topologies[i].context != "auto" for i in mine)


CHECK_LAYOUT_OPTIONS = Check(
    check_layout_options,
    needs=("spec.phases", "spec.topology", "model", "open_topologies", "topologies", "data_ranks"),
    holds="layout options are sound",
)
