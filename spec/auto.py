"""`topology = "auto"`: the whole table in one word, written out before layers are merged.

Each key of AUTO_KEYS then stands there as `"auto"`, at the place of the word, so that a later layer or a phase may pin
any of them, and everything behind the merge knows only tables.
"""

from trainwright.spec.tree import Array, Node, Scalar, Table

# What the compiler may choose of a layout.
AUTO_KEYS = (
    "tensor",
    "pipeline",
    "virtual_pipeline",
    "context",
    "data",
    "sequence_parallel",
    "zero",
    "zero_group",
    "micro_batch",
    "recompute",
    "schedule",
)
# A layout is searched for where one of these is left open. The others have a rule of their own, which costs nothing.
SEARCHED_KEYS = tuple(key for key in AUTO_KEYS if key not in ("data", "sequence_parallel", "micro_batch", "schedule"))


def spelled_out(layer: Table) -> Table:
    """The layer with `topology = "auto"`, of the spec or of a phase, as a table."""
    entries = {name: _topology(node) if name == "topology" else node for name, node in layer.entries.items()}
    phases = entries.get("phases")
    if isinstance(phases, Array):
        items: list[Node] = [_phase(phase) for phase in phases.items]
        entries["phases"] = Array(items, phases.span, phases.key, phases.origin)
    elif isinstance(phases, Table):  # an override, which names its phase
        named: dict[str, Node] = {name: _phase(phase) for name, phase in phases.entries.items()}
        entries["phases"] = Table(named, phases.span, phases.key, phases.origin)
    return Table(entries, layer.span, layer.key, layer.origin)


def _phase(node: Node) -> Node:
    if not isinstance(node, Table) or "topology" not in node.entries:
        return node
    return Table(node.entries | {"topology": _topology(node.entries["topology"])}, node.span, node.key, node.origin)


def _topology(node: Node) -> Node:
    if not isinstance(node, Scalar) or node.value != "auto":
        return node
    values: dict[str, Node] = {key: Scalar("auto", node.span, node.key, node.origin) for key in AUTO_KEYS}
    return Table(values, node.span, node.key, node.origin)
