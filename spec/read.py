"""The merged tree -> a `Spec`, or every mistake in it.

The walk follows `msgspec.inspect` of the type, so a new key in `spec.py` needs nothing here. One cause gives one
report: a key that looks like a required one misspelt is not also reported as missing.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Generic, TypeVar

from msgspec import Struct, inspect

from trainwright.spec import codes, expect, units
from trainwright.spec.diagnostics import Diagnostic, KeyPath, Span, display
from trainwright.spec.tree import Array, Node, Scalar, Table, plain

_T = TypeVar("_T", bound=Struct)
_LARGEST = 2**63 - 1  # what JSON readers of the plan can take


class _Invalid:
    """Stands for a value that was reported."""


_INVALID = _Invalid()

_CURES: dict[KeyPath, str] = {
    ("model",): 'give every dimension, or take them from a named size: `preset = "internlm2-7b"`',
    ("run",): 'write `[run]` with `name = "..."`',
    ("tokenizer",): "write `[tokenizer]` with `train = {}` or `path`",
}


@dataclass(frozen=True)
class Reading(Generic[_T]):
    """What became of a tree: `value` holds None in place of each of its `broken` fields."""

    value: _T
    broken: frozenset[str]
    diagnostics: list[Diagnostic]


def read(tree: Table, kind: type[_T], complete: bool = True) -> Reading[_T]:
    """The tree as a `kind`, as far as it is right. With `complete` false, absent keys are not reported."""
    type_info: Any = inspect.type_info(kind)
    reader = _Reader(complete, _owners(type_info))
    values = reader.fields(type_info, tree, (), None)
    broken = {field.name for field in type_info.fields if isinstance(values.get(field.name, _INVALID), _Invalid)}
    broken -= {field.name for field in type_info.fields if not field.required and field.name not in values}
    reader.diagnostics.sort(key=lambda diagnostic: (diagnostic.span is None, diagnostic.span))
    return Reading(kind(**values, **dict.fromkeys(broken - set(values))), frozenset(broken), reader.diagnostics)


class _Reader:
    def __init__(self, complete: bool, owners: dict[str, list[str]]) -> None:
        self.complete = complete
        self.owners = owners
        self.diagnostics: list[Diagnostic] = []

    def report(self, code: str, message: str, span: Span | None, help: str | None = None) -> _Invalid:
        self.diagnostics.append(Diagnostic(code, message, span, help))
        return _INVALID

    # --- tables ------------------------------------------------------------------------------------------------------

    def struct(self, kind: Any, table: Table, path: KeyPath, default: Struct | None) -> Any:
        """The struct of a table, or invalid; what it leaves open comes from `default`, if there is one."""
        values = self.fields(kind, table, path, default)
        required = {field.name for field in kind.fields if field.required}
        if required - set(values) or any(isinstance(value, _Invalid) for value in values.values()):
            return _INVALID
        return kind.cls(**values)

    def fields(self, kind: Any, table: Table, path: KeyPath, default: Struct | None) -> dict[str, Any]:
        """The values of those fields that the table or `default` gives, invalid ones among them.

        A misspelt key is told, and then read as what it was probably meant to be, so that nothing follows from it.
        """
        fields = {field.encode_name: field for field in kind.fields}
        guessed = self._unknown_keys(table, fields, path)
        values: dict[str, Any] = {}
        missing = []
        for name, field in fields.items():
            node = table.entries.get(name, guessed.get(name))
            if node is not None:
                inherited = getattr(default, field.name) if default is not None else field.default
                told = len(self.diagnostics)
                values[field.name] = self.value(field.type, node, (*path, name), inherited, None)
                if name not in table.entries:
                    del self.diagnostics[told:]
            elif default is not None:
                values[field.name] = getattr(default, field.name)
            elif field.required:
                missing.append(name)
        if missing and self.complete:
            self._missing(missing, kind, table, path)
        return values

    def _unknown_keys(self, table: Table, fields: dict[str, Any], path: KeyPath) -> dict[str, Node]:
        """Reports keys that are not fields; returns their nodes by the fields that they were probably meant to be."""
        guessed: dict[str, Node] = {}
        for name, node in table.entries.items():
            if name in fields:
                continue
            near = _nearest(name, fields, table)
            guessed.update(dict.fromkeys(near, node))
            owners = [] if near else [f"`[{key}]`" for key in self.owners.get(name, ())]
            if near:
                cure = f"did you mean `{near[0]}`?"
            elif owners:
                cure = f"it is a key of {' and '.join(owners)}"
            else:
                cure = f"known keys: {', '.join(fields)}"
            where = f" in {expect.table_name(path)}" if path else ""
            self.report(codes.UNKNOWN_KEY, f"unknown key `{name}`{where}", node.key or node.span, cure)
        return guessed

    def _missing(self, names: list[str], kind: Any, table: Table, path: KeyPath) -> None:
        if not path:
            for name in names:
                self.report(codes.MISSING_KEY, f"missing table `[{name}]`", table.span, _CURES.get((name,)))
            return
        keys = ", ".join(f"`{name}`" for name in names)
        noun = "key" if len(names) == 1 else "keys"
        message = f"missing {noun} {keys} in {expect.table_name(path)}"
        self.report(codes.MISSING_KEY, message, table.span, _CURES.get(path))

    # --- values ------------------------------------------------------------------------------------------------------

    def value(self, kind: Any, node: Node, path: KeyPath, default: Any, extra: dict[str, Any] | None) -> Any:
        """The node as a value of `kind`; `extra` is what the annotations around it say."""
        if isinstance(kind, inspect.Metadata):
            return self.value(kind.type, node, path, default, (extra or {}) | (kind.extra or {}))
        if isinstance(kind, inspect.UnionType):
            return self._union(kind, node, path, default, extra)
        if isinstance(kind, inspect.StructType):
            if not isinstance(node, Table):
                return self._wrong_type(kind, node, path, extra)
            return self.struct(kind, node, path, default if isinstance(default, Struct) else None)
        if isinstance(kind, inspect.DictType):
            return self._dict(kind, node, path, extra)
        if isinstance(kind, inspect.VarTupleType | inspect.TupleType):
            return self._tuple(kind, node, path, extra)
        if isinstance(kind, inspect.AnyType):
            return plain(node)
        if not isinstance(node, Scalar):
            return self._wrong_type(kind, node, path, extra)
        if isinstance(kind, inspect.LiteralType):
            return self._literal(kind, node, path, extra)
        return self._scalar(kind, node, path, extra or {})

    def _union(self, kind: Any, node: Node, path: KeyPath, default: Any, extra: dict[str, Any] | None) -> Any:
        options = [option for option in kind.types if not isinstance(option, inspect.NoneType)]
        literals = [option for option in options if isinstance(option, inspect.LiteralType)]
        others = [option for option in options if not isinstance(option, inspect.LiteralType)]
        if len(others) > 1:
            raise TypeError(f"{display(path)}: a union of {len(others)} types cannot be read")
        words = [str(word) for literal in literals for word in literal.values]
        if isinstance(node, Scalar) and isinstance(node.value, str):
            if node.value in words:
                return node.value
            if words and not (others and expect.reads_strings(others[0]) and node.value[:1].isdigit()):
                near = get_close_matches(node.value, words, 1)
                cure = f'did you mean "{near[0]}"?' if near else None
                message = f'expected {expect.described(kind, extra)}, found "{node.value}"'
                return self.report(codes.UNKNOWN_CHOICE, message, node.span, cure)
        if others:
            return self.value(others[0], node, path, default, extra)
        return self.value(literals[0], node, path, default, extra)

    def _dict(self, kind: Any, node: Node, path: KeyPath, extra: dict[str, Any] | None) -> Any:
        if not isinstance(node, Table):
            return self._wrong_type(kind, node, path, extra)
        values = {}
        for name, child in node.entries.items():
            key = Scalar(name, child.key or child.span, None, child.origin)
            checked = self.value(kind.key_type, key, (*path, name), None, None)
            values[name] = self.value(kind.value_type, child, (*path, name), None, None)
            if isinstance(checked, _Invalid):
                values[name] = _INVALID
        return _INVALID if any(isinstance(value, _Invalid) for value in values.values()) else values

    def _tuple(self, kind: Any, node: Node, path: KeyPath, extra: dict[str, Any] | None) -> Any:
        if not isinstance(node, Array):
            return self._wrong_type(kind, node, path, extra)
        if isinstance(kind, inspect.TupleType):
            item_types = list(kind.item_types)
            least = most = len(item_types)
        else:
            item_types = [kind.item_type] * len(node.items)
            least, most = kind.min_length or 0, kind.max_length
        count = len(node.items)
        if count < least or (most is not None and count > most):
            wanted = f"exactly {least}" if least == most else f"at least {least}"
            noun = "element" if least == 1 else "elements"
            message = f"`{expect.key_name(path)}` needs {wanted} {noun}, found {count}"
            return self.report(codes.WRONG_LENGTH, message, node.span)
        values = tuple(
            self.value(item_type, item, (*path, index), None, None)
            for index, (item_type, item) in enumerate(zip(item_types, node.items, strict=True))
        )
        return _INVALID if any(isinstance(value, _Invalid) for value in values) else values

    def _literal(self, kind: Any, node: Scalar, path: KeyPath, extra: dict[str, Any] | None) -> Any:
        if type(node.value) in {type(value) for value in kind.values}:
            if node.value in kind.values:
                return node.value
            near = get_close_matches(str(node.value), [str(value) for value in kind.values], 1)
            cure = f"did you mean {expect.literal(near[0])}?" if near and isinstance(node.value, str) else None
            message = f"expected {expect.described(kind, extra)}, found {expect.literal(node.value)}"
            return self.report(codes.UNKNOWN_CHOICE, message, node.span, cure)
        return self._wrong_type(kind, node, path, extra)

    def _scalar(self, kind: Any, node: Scalar, path: KeyPath, extra: dict[str, Any]) -> Any:
        value = node.value
        if "unit" in extra:
            read = self._quantity(kind, node, path, extra)
            return read if isinstance(read, _Invalid | str) else self._in_range(kind, read, node, path)
        if isinstance(kind, inspect.BoolType) and isinstance(value, bool):
            return value
        if isinstance(kind, inspect.IntType) and isinstance(value, int) and not isinstance(value, bool):
            return self._in_range(kind, value, node, path)
        if isinstance(kind, inspect.FloatType) and isinstance(value, int | float) and not isinstance(value, bool):
            return self._in_range(kind, float(value) if abs(value) <= _LARGEST else value, node, path)
        if isinstance(kind, inspect.StrType) and isinstance(value, str):
            return self._string(kind, value, node, path, extra)
        return self._wrong_type(kind, node, path, extra)

    def _string(self, kind: Any, value: str, node: Scalar, path: KeyPath, extra: dict[str, Any]) -> Any:
        if kind.pattern is not None and not expect.matches(kind.pattern, value):
            return self.report(codes.BAD_NAME, f'"{value}" is not a name', node.span, extra.get("alphabet"))
        if kind.min_length and len(value) < kind.min_length:
            return self.report(codes.WRONG_LENGTH, f"`{expect.key_name(path)}` must not be empty", node.span)
        return value

    def _quantity(self, kind: Any, node: Scalar, path: KeyPath, extra: dict[str, Any]) -> Any:
        """A number in the base unit, or the canonical text where the field is a string."""
        value = node.value
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            return self._wrong_type(kind, node, path, extra)
        if isinstance(value, float) and value - value != 0:
            return self.report(codes.OUT_OF_RANGE, f"{value} is not a finite number", node.span)
        try:
            if extra["unit"] == "interval":
                if isinstance(value, float):
                    return self._wrong_type(kind, node, path, extra)
                return units.canonical_interval(value)
            if isinstance(kind, inspect.StrType):
                is_text = isinstance(value, str)
                return units.canonical_gpu_hours(value) if is_text else self._wrong_type(kind, node, path, extra)
            return units.quantity(value, extra["unit"])
        except units.NotANumberError:
            return self._wrong_type(kind, node, path, extra)
        except units.NotWholeError as error:
            return self.report(codes.NOT_WHOLE, str(error), node.span, error.cure)
        except units.OutOfRangeError as error:
            return self.report(codes.OUT_OF_RANGE, str(error), node.span, error.cure)
        except units.UnitError as error:
            return self.report(codes.WRONG_UNIT, str(error), node.span, error.cure)

    def _in_range(self, kind: Any, value: int | float, node: Scalar, path: KeyPath) -> Any:
        said = expect.key_name(path)
        if value - value != 0:
            return self.report(codes.OUT_OF_RANGE, f"`{said}` must be a finite number, found {value}", node.span)
        limits = [
            (kind.ge is not None and value < kind.ge, f"at least {kind.ge}"),
            (kind.gt is not None and value <= kind.gt, f"greater than {kind.gt}"),
            (kind.le is not None and value > kind.le, f"at most {kind.le}"),
            (kind.lt is not None and value >= kind.lt, f"less than {kind.lt}"),
            (isinstance(value, int) and abs(value) > _LARGEST, f"at most {_LARGEST}"),
        ]
        for broken, limit in limits:
            if broken:
                found = expect.literal(node.value)
                return self.report(codes.OUT_OF_RANGE, f"`{said}` must be {limit}, found {found}", node.span)
        return value

    def _wrong_type(self, kind: Any, node: Node, path: KeyPath, extra: dict[str, Any] | None) -> _Invalid:
        message = f"expected {expect.described(kind, extra)}, found {expect.found(node)}"
        return self.report(codes.WRONG_TYPE, message, node.span, expect.cure(kind, node, path, extra))


def _owners(root: Any) -> dict[str, list[str]]:
    """Which of the root's tables have a key of a name."""
    owners: dict[str, list[str]] = {}
    for table in root.fields:
        for field in table.type.fields if isinstance(table.type, inspect.StructType) else ():
            owners.setdefault(field.encode_name, []).append(table.encode_name)
    return owners


def _nearest(name: str, fields: Iterable[str], table: Table) -> list[str]:
    """The field that the name was probably meant to be, if any: one that is written like it, or part of it."""
    similar = get_close_matches(name, fields, 3)
    words = set(name.split("_"))
    similar += sorted((field for field in fields if words.issuperset(field.split("_"))), key=len, reverse=True)
    free = [field for field in similar if field not in table.entries or table.entries[field].origin.kind == "preset"]
    return (free or similar)[:1]
