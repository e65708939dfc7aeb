"""What a key expects and what was found there, in words."""

import re
from datetime import date, datetime, time
from typing import Any

from msgspec import inspect

from trainwright.spec.diagnostics import KeyPath
from trainwright.spec.tree import Array, Node, Scalar, Table

_QUANTITIES = {
    "count": "a count",
    "tokens": "a number of tokens",
    "bytes": "a size",
    "seconds": "a duration",
    "bandwidth": "a bandwidth",
    "interval": 'an interval such as "500 steps" or "30min"',
    "gpu-hours": 'GPU hours such as "50000 gpu-hours"',
}
_EXAMPLES = {"count": "4Ki", "tokens": "2.34T", "bytes": "80GiB", "seconds": "30min", "bandwidth": "200Gb/s"}


def described(kind: Any, extra: dict[str, Any] | None = None) -> str:
    """What the type accepts: "an integer", "a table", 'one of "bf16", "fp32"'."""
    if isinstance(kind, inspect.Metadata):
        return described(kind.type, (extra or {}) | (kind.extra or {}))
    if isinstance(kind, inspect.UnionType):
        options = [option for option in kind.types if not isinstance(option, inspect.NoneType)]
        return " or ".join(described(option, extra) for option in options)
    if isinstance(kind, inspect.LiteralType):
        values = [literal(value) for value in kind.values]
        return values[0] if len(values) == 1 else f"one of {', '.join(values)}"
    if extra and "unit" in extra:
        return _quantity(extra["unit"])
    if isinstance(kind, inspect.VarTupleType):
        if isinstance(kind.item_type, inspect.StructType):
            return "an array of tables"
        return f"an array of {_plural(kind.item_type)}"
    if isinstance(kind, inspect.TupleType):
        return f"an array of {len(kind.item_types)} {_plural(kind.item_types[0])}"
    for types, words in _WORDS:
        if isinstance(kind, types):
            return words
    raise TypeError(f"no words for {kind}")


_WORDS: tuple[tuple[Any, str], ...] = (
    (inspect.StructType, "a table"),
    (inspect.DictType, "a table"),
    (inspect.BoolType, "true or false"),
    (inspect.IntType, "an integer"),
    (inspect.FloatType, "a number"),
    (inspect.StrType, "a string"),
)


def _quantity(unit: str) -> str:
    example = _EXAMPLES.get(unit)
    return f'{_QUANTITIES[unit]} such as "{example}"' if example else _QUANTITIES[unit]


def _plural(kind: Any) -> str:
    while isinstance(kind, inspect.Metadata):
        kind = kind.type
    return "strings" if isinstance(kind, inspect.StrType | inspect.LiteralType) else "numbers"


def found(node: Node) -> str:
    """What stands there: "the string "abc"", "an array", "a table"."""
    if isinstance(node, Table):
        return "a table"
    if isinstance(node, Array):
        return "an array"
    value = node.value
    if isinstance(value, bool):
        return f"`{literal(value)}`"
    names: tuple[tuple[Any, str], ...] = ((str, "string"), (int, "integer"), (float, "float"))
    for kind, name in names:
        if isinstance(value, kind):
            return f"the {name} {literal(value)}"
    names = ((datetime, "date and time"), (date, "date"), (time, "time"))
    return "a " + next(name for kind, name in names if isinstance(value, kind))


def literal(value: object) -> str:
    """The value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple):
        return f"[{', '.join(map(literal, value))}]"
    return str(value)


def cure(kind: Any, node: Node, path: KeyPath, extra: dict[str, Any] | None) -> str | None:
    """How the value could be written so that it fits, where that is plain."""
    name = ".".join(str(key) for key in path)
    if isinstance(kind, inspect.StructType) and not isinstance(node, Array):
        required = [field.encode_name for field in kind.fields if field.required]
        if len(required) == 1 and isinstance(node, Scalar):
            return f"write {{ {required[0]} = {literal(node.value)} }}"
        return f"write {{ {' = ..., '.join(required)} = ... }}" if required else None
    if isinstance(kind, inspect.DictType) and isinstance(node, Array) and node.items:
        return f"write `[{name}.NAME]`, a table for each name" if node.span == node.items[0].span else None
    if isinstance(kind, inspect.VarTupleType) and isinstance(node, Table):
        return f"write `[[{name}]]`"
    if isinstance(kind, inspect.VarTupleType) and isinstance(node, Scalar) and isinstance(node.value, str):
        return f'write ["{node.value}"]'
    if not isinstance(node, Scalar) or (extra and "unit" in extra):
        return None
    value = node.value
    if isinstance(kind, inspect.IntType) and isinstance(value, float) and value.is_integer():
        return f"write {int(value)}"
    if isinstance(kind, inspect.IntType | inspect.FloatType) and isinstance(value, str) and _is_number(value):
        return f"write {value} without quotes"
    if isinstance(kind, inspect.BoolType) and isinstance(value, str) and value.lower() in ("true", "false"):
        return f"write {value.lower()} without quotes"
    if isinstance(kind, inspect.StrType) and isinstance(value, bool | int | float):
        return f'write "{literal(value)}"'
    return None


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?", text) is not None


def reads_strings(kind: Any) -> bool:
    """Whether a string can be a value of the type: it is one, or a quantity."""
    if isinstance(kind, inspect.Metadata):
        return "unit" in (kind.extra or {}) or reads_strings(kind.type)
    return isinstance(kind, inspect.StrType)


def table_name(path: KeyPath) -> str:
    """The table as its header is written: `[run]`, `[[phases]]`, or `phases.learning_rate` below one."""
    names = [str(key) for key in path if isinstance(key, str)]
    if isinstance(path[-1], int):
        return f"`[[{'.'.join(names)}]]`"
    if any(isinstance(key, int) for key in path):
        return f"`{'.'.join(names)}`"
    return f"`[{'.'.join(names)}]`"


def key_name(path: KeyPath) -> str:
    """The last key of the path; elements of an array are called by their array."""
    return next((str(key) for key in reversed(path) if isinstance(key, str)), "")


def matches(pattern: str, value: str) -> bool:
    return re.search(pattern, value) is not None
