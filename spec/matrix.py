"""`[[matrix]]`: one file, several specs.

    [[matrix]]
    "topology.tensor" = [1, 2, 4]
    "phases[0].learning_rate.peak" = [1e-4, 3e-4]

Keys are paths as `-s` has them, values arrays of what stands there in turn. An entry makes every combination of its
values, the last key's changing fastest; several entries make the members of each, an empty one the spec as it is.
Members lie on the files and their `[[when]]`, below the environment and the command line: what these set is no longer
varied. A member is called after its run and the values that tell it from the others. `check` and `plan` take all
members at once (`plan -o FOLDER` writes a plan of each, `plan --json` a list); `run` and every other verb take one,
which `--only` names by its name, its end or its index. `-s matrix=[]` leaves the sweep out.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod

from trainwright.spec import codes, expect
from trainwright.spec.diagnostics import Diagnostic, Label, Origin, Span
from trainwright.spec.toml import key_path
from trainwright.spec.tree import Array, Node, Scalar, Table, nested, relabelled, walk

MOST_MEMBERS = 256
DESCRIPTION = 'Values by path, such as `"topology.tensor" = [1, 2]`: every combination is a member of the sweep.'
_FIXED = ("extends", "matrix", "when")


@dataclass(frozen=True)
class Member:
    """One spec of a sweep: the values in which it differs from the others, by path as written."""

    index: int
    name: str  # of its run
    end: str  # of that name, which tells it from the others; empty for the spec as it is
    values: Mapping[str, str]

    @property
    def label(self) -> str:
        """What it is called beside the other members."""
        return self.end or self.name


@dataclass(frozen=True)
class _Axis:
    """The values that one path takes in turn."""

    path: tuple[str, ...]
    key: Span
    values: Sequence[Node]


@dataclass(frozen=True)
class Setting:
    """One path and the value that a member has there."""

    path: tuple[str, ...]
    value: Node

    @property
    def layer(self) -> Table:
        return nested(self.path, self.value)


def combinations(matrix: Node | None, found: list[Diagnostic]) -> list[tuple[Setting, ...]]:
    """The settings of each member, in order; none without a matrix or with a wrong one, which goes to `found`."""
    if matrix is None:
        return []
    entries = [item for item in matrix.items if isinstance(item, Table)] if isinstance(matrix, Array) else []
    if not isinstance(matrix, Array) or len(entries) < len(matrix.items):
        message = f"expected an array of tables, found {expect.found(matrix)}"
        found.append(Diagnostic(codes.WRONG_TYPE, message, matrix.span, "write `[[matrix]]`"))
        return []
    reports: list[Diagnostic] = []
    crossed = [list(_axes(entry, (), index, reports)) for index, entry in enumerate(entries)]
    for axes in crossed:
        reports += _repeated(axes)
    count = sum(prod(len(axis.values) for axis in axes) for axes in crossed)
    if count > MOST_MEMBERS:
        message = f"a sweep of {count:,} members; at most {MOST_MEMBERS} are planned side by side"
        reports.append(
            Diagnostic(codes.SWEEP_TOO_LARGE, message, matrix.span, "give fewer values, or let a search choose")
        )
    found += reports
    if reports:
        return []
    return [
        tuple(Setting(axis.path, value) for axis, value in zip(axes, values, strict=True))
        for axes in crossed
        for values in product(*(axis.values for axis in axes))
    ]


def _axes(node: Table, above: tuple[str, ...], index: int, reports: list[Diagnostic]) -> Iterator[_Axis]:
    """The axes of an entry; tables in it (`topology.tensor = [1, 2]`) are parts of a path."""
    for name, child in node.entries.items():
        key = child.key or child.span
        path = key_path(name) if not above else [name]
        if path is None:
            cure = 'write it like "topology.tensor" or "phases[0].tokens"'
            reports.append(Diagnostic(codes.BAD_OVERRIDE, f"`{name}` is not the path of a value", key, cure))
            continue
        path = [*above, *path]
        if path[0] in _FIXED or path == ["run", "name"]:
            why = "members are named by their values" if path[0] == "run" else None
            said = f"a `[[matrix]]` cannot vary `{'.'.join(path)}`"
            reports.append(Diagnostic(codes.CANNOT_VARY, said, key, why))
        elif isinstance(child, Table):
            yield from _axes(child, tuple(path), index, reports)
        elif not isinstance(child, Array):
            message = f"expected an array of values, found {expect.found(child)}"
            cure = f"write [{expect.literal(child.value)}]"
            reports.append(Diagnostic(codes.WRONG_TYPE, message, child.span, cure))
        elif not child.items:
            message = f"`{name}` needs at least 1 element, found 0"
            reports.append(Diagnostic(codes.WRONG_LENGTH, message, child.span))
        else:
            yield _Axis(tuple(path), key, [_setting(item, key, index) for item in child.items])


def _setting(node: Node, key: Span, index: int) -> Node:
    """The value as a node of the matrix's own, under the key that it was given to."""
    made = relabelled(node, lambda origin: Origin("matrix", f"matrix[{index}] {origin.text}", origin.span))
    made.key = key
    return made


def _repeated(axes: Sequence[_Axis]) -> Iterator[Diagnostic]:
    first: dict[tuple[str, ...], Span] = {}
    for axis in axes:
        if axis.path in first:
            labels = (Label(first[axis.path], "first here"),)
            yield Diagnostic(
                codes.DUPLICATE_KEY, f"key `{'.'.join(axis.path)}` is defined twice", axis.key, labels=labels
            )
        first.setdefault(axis.path, axis.key)


# --- names -----------------------------------------------------------------------------------------------------------

Values = dict[tuple[str, ...], str]  # path of a scalar -> its value as written


def written(settings: Sequence[Setting], sources: Mapping[str, str]) -> Iterator[tuple[tuple[str, ...], str]]:
    """The scalars of a member's settings as they are written, and empty arrays, by path."""
    for setting in settings:
        for path, node in walk(setting.value):
            if isinstance(node, Scalar):
                yield (*setting.path, *(str(key) for key in path)), _text(node, sources)
            elif isinstance(node, Array) and not node.items:
                yield (*setting.path, *(str(key) for key in path)), "[]"


def name_members(members: Sequence[Values]) -> list[tuple[str, dict[str, str]]]:
    """For each member the end of its name, and the values that tell it from the others by path."""
    paths = list(dict.fromkeys(path for values in members for path in values))
    varied = [path for path in paths if len({values.get(path) for values in members}) > 1]
    telling = _telling(varied, members)
    labels = _labels(telling)
    said = [{path: values[path] for path in varied if path in values} for values in members]
    ends = ["-".join(f"{labels[path]}_{_plain(values[path])}" for path in telling if path in values) for values in said]
    counts = Counter(ends)
    seen: Counter[str] = Counter()
    unique = []
    for end in ends:  # different values may look alike once only letters and digits are left
        seen[end] += 1
        unique.append(f"{end}-{seen[end]}" if counts[end] > 1 else end)
    return [
        (end, {".".join(path): text for path, text in values.items()}) for end, values in zip(unique, said, strict=True)
    ]


def _telling(paths: Sequence[tuple[str, ...]], members: Sequence[Values]) -> list[tuple[str, ...]]:
    """The paths that are needed to tell the members apart: what follows from the values before it says no more."""
    telling: list[tuple[str, ...]] = []
    for path in paths:
        more = [*telling, path]
        if _groups(members, more) > _groups(members, telling):
            telling = more
    return telling


def _groups(members: Sequence[Values], paths: Sequence[tuple[str, ...]]) -> int:
    return len({tuple(values.get(path) for path in paths) for values in members})


def _labels(paths: Sequence[tuple[str, ...]]) -> dict[tuple[str, ...], str]:
    """The last words of each path, as many as tell it from the others."""
    labels = {}
    for path in paths:
        others = [other for other in paths if other != path]
        length = 1
        while length < len(path) and (
            path[-length].isdecimal() or any(other[-length:] == path[-length:] for other in others)
        ):
            length += 1
        labels[path] = _plain(".".join(path[-length:]))
    return labels


def _plain(text: str) -> str:
    """What of the text a name may hold."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-") or "none"


def _text(node: Scalar, sources: Mapping[str, str]) -> str:
    """The value as it stands in its file, without quotes: `1e-4` stays `1e-4`."""
    if isinstance(node.value, str):
        return node.value
    span = node.span
    line = sources[span.file].replace("\r\n", "\n").split("\n")[span.line - 1]
    return line[span.column - 1 : span.end_column - 1]


# --- choosing and telling --------------------------------------------------------------------------------------------


def choose(members: Sequence[Member], only: str | None, matrix: Span | None) -> int | Diagnostic:
    """The index of the member that `only` names (its name, the end of it, or its index), or what is wrong with it."""
    if only is not None and not members:
        return Diagnostic(codes.NO_MEMBER_CHOSEN, f"`--only {only}` chooses from a `[[matrix]]`, and there is none")
    if only is None and len(members) == 1:
        return 0
    if only is None:
        said = f"this spec is a sweep of {len(members)}, and nothing says which one is meant"
    else:
        if only.isdecimal() and int(only) < len(members):
            return int(only)
        exact = [member.index for member in members if only in (member.name, member.end)]
        named = exact or [member.index for member in members if member.end.endswith(f"-{only}")]
        if len(named) == 1:
            return named[0]
        said = f"no member of the sweep is called `{only}`" if not named else f"`{only}` may mean {len(named)} members"
    names = [member.label for member in members]
    cure = f"name it: --only {' or '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
    return Diagnostic(codes.NO_MEMBER_CHOSEN, said, matrix, cure)


def combined(reports: Sequence[tuple[str, Sequence[Diagnostic]]]) -> list[Diagnostic]:
    """The diagnostics of all members, each once; one that not all have says which have it."""
    having: dict[Diagnostic, list[str]] = {}
    for member, diagnostics in reports:
        for diagnostic in diagnostics:
            having.setdefault(diagnostic, []).append(member)
    return [
        diagnostic if len(names) == len(reports) else replace(diagnostic, members=tuple(names))
        for diagnostic, names in having.items()
    ]
