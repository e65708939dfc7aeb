"""A spec file -> a `Spec` with the origin of every value, or every mistake in it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from trainwright.spec.diagnostics import Diagnostic, KeyPath, Origin, Span, has_errors, in_order
from trainwright.spec.layers import Gathered, gather
from trainwright.spec.matrix import Member, choose
from trainwright.spec.read import read
from trainwright.spec.spec import Spec
from trainwright.spec.tree import Array, Node, Table

_DEFAULT = Origin("default", "default")


@dataclass(frozen=True)
class Origins:
    """Where each value of the spec was written. Paths use the spec's own words: ("phases", 0, "from")."""

    tree: Table

    def at(self, path: KeyPath) -> Origin:
        """Where the value comes from; a value that nobody wrote is a default."""
        node = self._find(path)
        return node.origin if node else _DEFAULT

    def span(self, path: KeyPath, of: Literal["key", "value"] = "value") -> Span | None:
        """The place of the value or its key; of the nearest table around it if nobody wrote it, None if none."""
        node = self._find(path)
        if node is None:
            return self.span(path[:-1]) if path else None
        if not path and not node.span.file:
            return None
        return (node.key or node.span) if of == "key" else node.span

    def _find(self, path: KeyPath) -> Node | None:
        node: Node | None = self.tree
        for key in path:
            if isinstance(node, Table) and isinstance(key, str):
                node = node.entries.get(key)
            elif isinstance(node, Array) and isinstance(key, int) and key < len(node.items):
                node = node.items[key]
            else:
                return None
        return node


@dataclass(frozen=True)
class Loaded:
    """What became of a spec file. `spec` is None if there are errors; `sources` holds the texts spans point into.

    `partial` is the spec as far as it could be read, with None in place of each `broken` table, so that what is right
    can be checked beside what is wrong; it is None if the text itself could not be read.
    """

    file: str
    spec: Spec | None
    partial: Spec | None
    broken: frozenset[str]
    diagnostics: list[Diagnostic]
    origins: Origins
    root: Path
    sources: dict[str, str]
    files: tuple[Path, ...]  # the spec's, and those it extends
    member: Member | None = None  # of the sweep in the file, if it is one


def load(
    path: Path, sets: Sequence[str] = (), environ: Mapping[str, str] | None = None, only: str | None = None
) -> Loaded:
    """Reads the spec with its layers; `sets` are the `KEY=VALUE` of the command line. Never raises for a mistake.

    Of a sweep it is the member that `only` names; none named is a mistake, and so is a name where there is no sweep.
    """
    gathered = gather(path, sets, environ or {})
    members = [each.member for each in gathered if each.member]
    if not members and only is None:
        return _read(path, gathered[0])
    chosen = choose(members, only, gathered[0].matrix) if not has_errors(gathered[0].diagnostics) else 0
    if isinstance(chosen, int):
        return _read(path, gathered[chosen])
    found = in_order([*gathered[0].diagnostics, chosen], str(path))
    return replace(_read(path, gathered[0]), spec=None, partial=None, diagnostics=found, member=None)


def load_members(path: Path, sets: Sequence[str] = (), environ: Mapping[str, str] | None = None) -> list[Loaded]:
    """As `load`, but every member of a sweep in its order; a spec without a `[[matrix]]` is alone."""
    return [_read(path, gathered) for gathered in gather(path, sets, environ or {})]


def _read(path: Path, gathered: Gathered) -> Loaded:
    reading = read(gathered.tree, Spec, gathered.complete)
    diagnostics = in_order(gathered.diagnostics + reading.diagnostics, str(path))
    return Loaded(
        file=str(path),
        spec=None if has_errors(diagnostics) else reading.value,
        partial=reading.value if gathered.complete else None,
        broken=reading.broken,
        diagnostics=diagnostics,
        origins=Origins(gathered.tree),
        root=path.parent,
        sources=gathered.sources,
        files=gathered.files,
        member=gathered.member,
    )
