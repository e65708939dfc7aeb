"""A resolved spec as TOML, every value with where it comes from; read again, it gives the same spec."""

from collections.abc import Iterator
from typing import Any

import tomlkit
from msgspec import Struct, structs
from tomlkit.items import AoT, Item, Table

from trainwright.spec.diagnostics import KeyPath
from trainwright.spec.load import Loaded, Origins

_WIDEST = 60  # beyond this, a value's comment is not aligned with the others


def show_spec(loaded: Loaded) -> str:
    """The whole spec, which must have loaded; each value's origin stands behind it as a comment."""
    assert loaded.spec is not None
    document = tomlkit.document()
    for name, value in _fields(loaded.spec):
        item = _item(value, (name,), loaded.origins)
        if item is not None:
            document.append(name, item)
    return tomlkit.dumps(document)


def _fields(struct: Struct) -> Iterator[tuple[str, Any]]:
    """Each key as it is written, and its value."""
    for field in structs.fields(struct):
        yield field.encode_name, getattr(struct, field.name)


def _item(value: Any, path: KeyPath, origins: Origins) -> Item | None:
    """The value as TOML; None if there is nothing to write."""
    if value is None:
        return None
    if isinstance(value, Struct):
        return _table(_fields(value), path, origins)
    if isinstance(value, dict):
        return _table(iter(value.items()), path, origins)
    if isinstance(value, tuple) and any(isinstance(element, Struct) for element in value):
        tables = tomlkit.aot()
        for index, element in enumerate(value):
            table = _item(element, (*path, index), origins)
            assert isinstance(table, Table)
            tables.append(table)
        return tables
    if value == ():
        return None  # an empty array means the same as none
    item: Item = tomlkit.item(list(value) if isinstance(value, tuple) else value)
    item.comment(origins.at(path).text)
    return item


def _table(entries: Iterator[tuple[str, Any]], path: KeyPath, origins: Origins) -> Table | None:
    """A table with its values first, their comments aligned, then its sub-tables; None if it would be empty."""
    items = [(name, item) for name, value in entries if (item := _item(value, (*path, name), origins)) is not None]
    if not items and path != ("tokenizer",):
        return None
    values = [(name, item) for name, item in items if not isinstance(item, Table | AoT)]
    width = max((min(_width(name, item), _WIDEST) for name, item in values), default=0)
    table = tomlkit.table()
    for name, item in values:
        item.trivia.comment_ws = " " * (max(width - _width(name, item), 0) + 2)
        table.append(name, item)
    for name, item in items:
        if isinstance(item, Table | AoT):
            table.append(name, item)
    return table


def _width(name: str, item: Item) -> int:
    return len(tomlkit.key(name).as_string()) + len(item.as_string())
