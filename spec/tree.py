"""A TOML document as a tree whose every node knows where it was written and which layer it came from."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time

from trainwright.spec.diagnostics import KeyPath, Origin, Span

ScalarValue = str | int | float | bool | datetime | date | time


@dataclass(slots=True, eq=False)
class Scalar:
    """A string, number, boolean or date. `span` covers the value, `key` the key that it was given to, if any."""

    value: ScalarValue
    span: Span
    key: Span | None
    origin: Origin


@dataclass(slots=True, eq=False)
class Array:
    """An array, inline or of tables (`[[name]]`)."""

    items: "list[Node]"
    span: Span
    key: Span | None
    origin: Origin


@dataclass(slots=True, eq=False)
class Table:
    """A table. `span` covers its header (`[name]`), its braces, or the key part that made it come into being."""

    entries: "dict[str, Node]"
    span: Span
    key: Span | None
    origin: Origin


Node = Scalar | Array | Table


def walk(node: Node, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Node]]:
    """The node and all below it with their paths, parents first."""
    yield path, node
    if isinstance(node, Table):
        for name, child in node.entries.items():
            yield from walk(child, (*path, name))
    elif isinstance(node, Array):
        for index, child in enumerate(node.items):
            yield from walk(child, (*path, index))


def relabelled(node: Node, origin: Callable[[Origin], Origin]) -> Node:
    """The same tree at the same places, each node's origin replaced by what `origin` makes of it."""
    if isinstance(node, Table):
        entries = {name: relabelled(child, origin) for name, child in node.entries.items()}
        return Table(entries, node.span, node.key, origin(node.origin))
    if isinstance(node, Array):
        return Array([relabelled(item, origin) for item in node.items], node.span, node.key, origin(node.origin))
    return Scalar(node.value, node.span, node.key, origin(node.origin))


def nested(path: Sequence[str], node: Node) -> Table:
    """Tables around the node, so that it stands at the path; they stand where its key does."""
    key = node.key or node.span
    for name in reversed(path):
        node = Table({name: node}, key, key, node.origin)
    assert isinstance(node, Table)
    return node


def plain(node: Node) -> object:
    """The values alone, as `tomllib` would give them."""
    if isinstance(node, Table):
        return {name: plain(child) for name, child in node.entries.items()}
    if isinstance(node, Array):
        return [plain(child) for child in node.items]
    return node.value
