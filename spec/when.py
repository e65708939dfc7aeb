"""`[[when]]`: values that apply only on clusters of a kind.

    [[when]]
    cluster = { gpu = "h100*", nodes = ">=16" }
    set = { topology = { tensor = 1 }, run = { precision = "bf16" } }

Words are globs, quantities comparisons (`">=16"`, `">=100Gb/s, <400Gb/s"`, or a value, which must be equal); an array
means any of its elements. All conditions of an entry must hold, of the cluster as it is without any `[[when]]`.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from itertools import pairwise
from math import inf, isfinite
from operator import eq, ge, gt, le, lt, ne
from pathlib import Path
from typing import Any

from msgspec import Struct, inspect

from trainwright.spec import codes, expect, units
from trainwright.spec.device import known_hardware
from trainwright.spec.diagnostics import Diagnostic, KeyPath, Origin, Span
from trainwright.spec.read import read
from trainwright.spec.spec import Cluster
from trainwright.spec.toml import key_path
from trainwright.spec.tree import Array, Node, Scalar, Table, nested, relabelled

DESCRIPTIONS = {
    "cluster": "Conditions on `[cluster]`, which all must hold: globs for words, comparisons for quantities.",
    "set": "The tables and values that then apply; anything but `cluster`.",
}
_Comparison = Callable[[Any, Any], bool]
_COMPARISONS: dict[str, _Comparison] = {">=": ge, "<=": le, "!=": ne, "==": eq, ">": gt, "<": lt}
_COMPARISON = re.compile(r"\s*(>=|<=|!=|==|>|<)?\s*(.*?)\s*", re.DOTALL)
# What no condition may change: conditions are about the cluster, and the rest has been read by then.
_FIXED = ("cluster", "extends", "matrix", "when")


@dataclass(frozen=True)
class _Test:
    """A condition on one value of the cluster."""

    path: tuple[str, ...]
    holds: Callable[[Any], bool]


@dataclass(frozen=True)
class Conditional:
    """One entry: what it sets, as layers, and when."""

    tests: tuple[_Test, ...]
    values: tuple[Table, ...]

    def applies(self, cluster: Cluster) -> bool:
        return all(test.holds(_value(cluster, test.path)) for test in self.tests)


def cluster_of(tree: Table) -> Cluster | None:
    """The cluster of a merged tree with its defaults; None if it is wrong, which is told where the tree is read."""
    node = tree.entries.get("cluster")
    if node is None:
        return Cluster()
    reading = read(node, Cluster) if isinstance(node, Table) else None
    return None if reading is None or reading.diagnostics else reading.value


def conditionals(document: Table, root: Path, found: list[Diagnostic]) -> tuple[Conditional, ...]:
    """The right entries of a document's `when`; what is wrong with the others goes to `found`.

    `root` is the spec's folder, for the hardware files beside it.
    """
    array = document.entries.get("when")
    if array is None:
        return ()
    if not isinstance(array, Array):
        message = f"expected an array of tables, found {expect.found(array)}"
        found.append(Diagnostic(codes.WRONG_TYPE, message, array.span, "write `[[when]]`"))
        return ()
    entries = [_Entry(item, index, root) for index, item in enumerate(array.items)]
    for entry in entries:
        found += entry.diagnostics
    return tuple(Conditional(tuple(entry.tests), tuple(entry.values)) for entry in entries if not entry.diagnostics)


class _Entry:
    """Reads one `[[when]]`."""

    def __init__(self, node: Node, index: int, root: Path) -> None:
        self.root = root
        self.tests: list[_Test] = []
        self.diagnostics: list[Diagnostic] = []
        self.values: list[Table] = []
        if not isinstance(node, Table):
            self._report(codes.WRONG_TYPE, f"expected a table, found {expect.found(node)}", node.span)
            return
        self._known(node, DESCRIPTIONS, "`[[when]]`")
        missing = [f"`{name}`" for name in DESCRIPTIONS if name not in node.entries]
        if missing and not self.diagnostics:
            cure = 'write `cluster = { gpu = "h100*" }` and `set = { topology = { tensor = 1 } }`'
            self._report(codes.MISSING_KEY, f"missing {' and '.join(missing)} in `[[when]]`", node.span, cure)
        if "cluster" in node.entries:
            self._conditions(inspect.type_info(Cluster), node.entries["cluster"], ())
        if "set" in node.entries:
            self._set(node.entries["set"], index)

    def _report(self, code: str, message: str, span: Span, cure: str | None = None) -> None:
        self.diagnostics.append(Diagnostic(code, message, span, cure))

    def _known(self, table: Table, names: Any, where: str) -> None:
        for name, node in table.entries.items():
            if name not in names:
                near = get_close_matches(name, names, 1)
                cure = f"did you mean `{near[0]}`?" if near else f"known keys: {', '.join(names)}"
                self._report(codes.UNKNOWN_KEY, f"unknown key `{name}` in {where}", node.key or node.span, cure)

    def _set(self, node: Node, index: int) -> None:
        if not isinstance(node, Table):
            cure = "write `set = { topology = { tensor = 1 } }`"
            self._report(codes.WRONG_TYPE, f"expected a table, found {expect.found(node)}", node.span, cure)
            return
        for name, child in node.entries.items():
            path = key_path(name) or [name]
            if path[0] in _FIXED:
                why = "its conditions are about the cluster" if path[0] == "cluster" else None
                self._report(codes.CANNOT_VARY, f"a `[[when]]` cannot set `{path[0]}`", child.key or child.span, why)
            else:
                self.values.append(nested(path, relabelled(child, lambda origin: _labelled(origin, index))))

    # --- conditions --------------------------------------------------------------------------------------------------

    def _conditions(self, kind: Any, node: Node, path: tuple[str, ...]) -> None:
        """The tests of a table of conditions on a struct."""
        if not isinstance(node, Table):
            write = None if path else 'write `cluster = { gpu = "h100*" }`'
            self._report(codes.WRONG_TYPE, f"expected a table, found {expect.found(node)}", node.span, write)
            return
        fields = {field.encode_name: field for field in kind.fields}
        self._known(node, fields, expect.table_name(("cluster", *path)))
        for name, child in node.entries.items():
            if name in fields:
                self._condition(fields[name].type, child, (*path, name))

    def _condition(self, annotated: Any, node: Node, path: tuple[str, ...]) -> None:
        kind, extra = _bare(annotated)
        if isinstance(kind, inspect.StructType):
            self._conditions(kind, node, path)
            return
        options = node.items if isinstance(node, Array) else [node]
        if not options:
            message = f"`{path[-1]}` needs at least 1 element, found 0"
            self._report(codes.WRONG_LENGTH, message, node.span)
            return
        told = len(self.diagnostics)
        holds = [self._holds(kind, extra, option, path) for option in options]
        if len(self.diagnostics) == told:
            self.tests.append(_Test(path, lambda value: any(test is not None and test(value) for test in holds)))

    def _holds(self, kind: Any, extra: Any, node: Node, path: KeyPath) -> Callable[[Any], bool] | None:
        """The test of one value; None if it was reported."""
        if isinstance(kind, inspect.LiteralType):
            return self._glob(node, path, [str(value) for value in kind.values])
        if isinstance(kind, inspect.StrType) and "unit" not in extra:
            return self._glob(node, path, known_hardware(self.root) if path == ("gpu",) else None)
        return self._comparison(kind, extra, node)

    def _glob(self, node: Node, path: KeyPath, known: Sequence[str] | None) -> Callable[[Any], bool] | None:
        if not isinstance(node, Scalar) or not isinstance(node.value, str):
            self._report(codes.WRONG_TYPE, f"expected a name or a glob, found {expect.found(node)}", node.span)
            return None
        pattern = node.value
        path_of_file = path == ("gpu",) and pattern.endswith(".toml")
        if known is not None and not path_of_file and not any(fnmatchcase(name, pattern) for name in known):
            near = get_close_matches(pattern.replace("*", ""), known, 1)
            cure = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(known)}"
            self._report(codes.NEVER_TRUE, f"no `{path[-1]}` is like `{pattern}`", node.span, cure)
        return lambda value: fnmatchcase(value, pattern)

    def _comparison(self, kind: Any, extra: dict[str, Any], node: Node) -> Callable[[Any], bool] | None:
        value = node.value if isinstance(node, Scalar) else None
        unit = extra.get("unit")
        wrong = f'expected a comparison such as ">=16", found {expect.found(node)}'
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            self._report(codes.WRONG_TYPE, wrong, node.span)
            return None
        try:
            tests = _comparisons(value, unit)
        except units.NotANumberError:
            self._report(codes.WRONG_TYPE, wrong, node.span)
            return None
        except units.UnitError as error:
            self._report(codes.WRONG_UNIT, str(error), node.span, error.cure)
            return None
        whole = isinstance(kind, inspect.IntType)
        least = kind.ge if isinstance(kind, inspect.IntType | inspect.FloatType) and kind.ge is not None else 0
        if not _can_hold(tests, least, whole):
            cure = f"it is at least {least}" if _can_hold(tests, -inf, whole) else None
            self._report(codes.NEVER_TRUE, f"no value meets `{value}`", node.span, cure)
        return lambda found: found is not None and all(test(_number(found, unit), bound) for test, bound in tests)


def _labelled(origin: Origin, index: int) -> Origin:
    return Origin("when", f"when[{index}] {origin.text}", origin.span)


def _comparisons(value: int | float | str, unit: str | None) -> list[tuple[_Comparison, float]]:
    """What `">=16, <64"` compares, and with which numbers. Raises UnitError."""
    if not isinstance(value, str):
        return [(eq, _number(value, unit))]
    tests = []
    for part in value.split(","):
        match = _COMPARISON.fullmatch(part)
        assert match  # both groups may be empty
        tests.append((_COMPARISONS[match[1] or "=="], _number(match[2], unit)))
    return tests


def _number(value: int | float | str, unit: str | None) -> float:
    """The value in its base unit; a field without a unit holds a plain number. Raises UnitError."""
    if isinstance(value, float) and not isfinite(value):
        raise units.NotANumberError(f"{value} is not a finite number")
    if unit is not None:
        return units.quantity(value, unit)
    try:
        return float(value)
    except ValueError as error:
        raise units.NotANumberError(str(error)) from error


def _can_hold(tests: Sequence[tuple[_Comparison, float]], least: float, whole: bool) -> bool:
    """Whether some number from `least` on meets all comparisons; only at and between the bounds can that change."""
    bounds = sorted({*(bound for _, bound in tests), *([least] if least > -inf else [])})
    tried = [bound + step for bound in bounds for step in (-1, 0, 1)]
    if not whole:
        tried += [(lower + upper) / 2 for lower, upper in pairwise(bounds)]
    return any(number >= least and all(test(number, bound) for test, bound in tests) for number in tried)


def _bare(kind: Any) -> tuple[Any, dict[str, Any]]:
    """The type without None, and what the annotations around it say."""
    extra: dict[str, Any] = {}
    while not isinstance(kind, inspect.StructType):
        if isinstance(kind, inspect.Metadata):
            extra |= kind.extra or {}
            kind = kind.type
        elif isinstance(kind, inspect.UnionType):
            kind = next(option for option in kind.types if not isinstance(option, inspect.NoneType))
        else:
            break
    return kind, extra


def _value(struct: Struct, path: tuple[str, ...]) -> Any:
    value: Any = struct
    for name in path:
        value = getattr(value, name)
    return value
