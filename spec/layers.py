"""The layers of a spec, merged: preset < extends < file < matrix < environment < command line. Defaults: see `read`.

A layer's `[[when]]` lie directly on it, where they apply; each member of a `[[matrix]]` is a merge of its own. Tables
merge key by key; anything else replaces what lies below. An override may address the element of an array by its index
or its name: `phases.short.tokens`.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from trainwright.spec import codes
from trainwright.spec.auto import spelled_out
from trainwright.spec.diagnostics import Diagnostic, Label, Origin, Span
from trainwright.spec.matrix import Member, Setting, combinations, name_members, written
from trainwright.spec.read import read
from trainwright.spec.spec import Cluster, Spec
from trainwright.spec.toml import Document, key_path, parse
from trainwright.spec.tree import Array, Node, Scalar, Table, nested, walk
from trainwright.spec.when import Conditional, cluster_of, conditionals

ENVIRONMENT_PREFIX = "TRAINWRIGHT_SET__"
_PRESETS = Path(__file__).parent / "presets"


def known_presets() -> list[str]:
    """The names that `preset:NAME` and `[model] preset` know, sorted."""
    return sorted(file.stem for file in _PRESETS.glob("*.toml"))


def preset_text(name: str) -> str:
    """The TOML text of a known preset."""
    return (_PRESETS / f"{name}.toml").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Layer:
    """What one document or override says: its values, and those that it has for some clusters."""

    values: Table
    conditionals: tuple[Conditional, ...] = ()

    def on(self, cluster: Cluster | None) -> list[Table]:
        """The layer's tables, from the lowest; without its conditionals if nothing is known of the cluster."""
        applying = [each for each in self.conditionals if cluster and each.applies(cluster)]
        return [self.values, *(values for each in applying for values in each.values)]


@dataclass
class Gathered:
    """A merged tree, what went wrong on the way, and the texts that spans point into."""

    tree: Table
    diagnostics: list[Diagnostic]
    sources: dict[str, str]
    files: tuple[Path, ...]  # all that were read, presets not counted
    complete: bool  # False: parts are missing because of the diagnostics, so absence proves nothing
    member: Member | None = None  # of the sweep that the spec is
    matrix: Span | None = None  # where the sweep is written


def gather(path: Path, sets: Sequence[str], environ: Mapping[str, str]) -> list[Gathered]:
    """All layers of the spec at `path`, merged; for a sweep, those of each of its members."""
    return _Gatherer(path.parent).gather(path, sets, environ)


class _Gatherer:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.diagnostics: list[Diagnostic] = []
        self.sources: dict[str, str] = {}
        self.complete = True
        self.presets: list[Layer] = []
        self.files: list[Layer] = []
        self.documents: dict[Path, Table | None] = {}

    def gather(self, path: Path, sets: Sequence[str], environ: Mapping[str, str]) -> list[Gathered]:
        self._file(path, None, ())
        overrides = [self._layer(table) for table in self._environment(environ) + self._command_line(sets)]
        matrix = _merged([layer.values for layer in self.presets + self.files + overrides], []).entries.get("matrix")
        settings = combinations(matrix, self.diagnostics)
        if not settings:
            return [self._member((), overrides)]
        assert matrix
        members = [self._member(each, overrides) for each in settings]
        # What the environment or the command line sets is no longer varied, and members may become the same.
        kept: dict[tuple[tuple[tuple[str, ...], str], ...], Gathered] = {}
        values = []
        for each, member in zip(settings, members, strict=True):
            varied = {path: text for path, text in written(each, self.sources) if _is_varied(member.tree, path)}
            if kept.setdefault(tuple(sorted(varied.items())), member) is member:
                values.append(varied)
        for index, (member, (end, said)) in enumerate(zip(kept.values(), name_members(values), strict=True)):
            member.member = Member(index, _rename(member.tree, end), end, said)
            member.matrix = matrix.span
        return list(kept.values())

    def _layer(self, table: Table) -> Layer:
        values = {name: node for name, node in table.entries.items() if name not in ("extends", "when")}
        told = len(self.diagnostics)
        found = conditionals(table, self.root, self.diagnostics)
        self.complete = self.complete and len(self.diagnostics) == told
        return Layer(Table(values, table.span, table.key, table.origin), found)

    def _member(self, settings: Sequence[Setting], overrides: list[Layer]) -> Gathered:
        """The merge of all layers with these settings of a matrix."""
        varied = [Layer(setting.layer) for setting in settings]
        above = self.files + varied + overrides
        cluster = None
        if any(layer.conditionals for layer in self.presets + above):
            cluster = cluster_of(_merged([layer.values for layer in self.presets + above], []))
        lower = [table for layer in self.presets for table in layer.on(cluster)]
        upper = [table for layer in above for table in layer.on(cluster)]
        diagnostics = list(self.diagnostics)
        problems: list[Diagnostic] = []
        tree = _merged(lower + upper, problems)
        preset = _at(tree, ("model", "preset"))
        if isinstance(preset, Scalar) and isinstance(preset.value, str):
            table = self._read_preset(preset.value, preset.span, diagnostics)
            if table and "model" in table.entries:
                lower.append(Table({"model": table.entries["model"]}, table.span, table.key, table.origin))
                problems.clear()
                tree = _merged(lower + upper, problems)
        tree.entries.pop("matrix", None)
        complete = self.complete and len(diagnostics) == len(self.diagnostics)
        for each in (each for layer in self.presets + above for each in layer.conditionals):
            if cluster and not each.applies(cluster):
                problems += _mistakes_of_idle(each, tree)
        return Gathered(tree, diagnostics + problems, self.sources, tuple(self.documents), complete)

    # --- files and presets -------------------------------------------------------------------------------------------

    def _file(self, path: Path, asked: Span | None, chain: tuple[tuple[Path, Span | None], ...]) -> None:
        """Reads the file and, before it, what it extends. `asked` is where its name was written."""
        true_path = path.resolve()
        for before, first_asked in chain:
            if before == true_path:
                labels = (Label(first_asked, "which was reached from here"),) if first_asked else ()
                self._report(codes.EXTENDS_CYCLE, f"`{path.name}` extends itself in the end", asked, labels=labels)
                return
        if true_path not in self.documents:
            self.documents[true_path] = self._parse_file(path, asked)
        table = self.documents[true_path]
        if table is None:
            return
        chain = (*chain, (true_path, asked))
        for name, span in self._extends(table):
            if name.startswith("preset:"):
                self._preset(name.removeprefix("preset:"), span)
            else:
                self._file(Path(os.path.normpath(path.parent / name)), span, chain)
        self.files.append(self._layer(table))

    def _parse_file(self, path: Path, asked: Span | None) -> Table | None:
        name = str(path)
        try:
            data = path.read_bytes()
        except OSError as error:
            reason = (error.strerror or "it cannot be read").lower()
            self._report(codes.UNREADABLE_FILE, f"cannot read `{name}`: {reason}", asked)
            return None
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            good = data[: error.start].decode("utf-8")
            line, column = good.count("\n") + 1, len(good) - good.rfind("\n")
            self.sources[name] = data.decode("utf-8", errors="replace")
            message = f"byte 0x{data[error.start]:02x} is not UTF-8"
            span = Span(name, line, column, line, column + 1)
            self._report(codes.NOT_UTF8, message, span, help="save the file as UTF-8")
            return None
        self.sources[name] = text
        document = parse(text, name, lambda span: Origin("file", f"{name}:{span.line}", span))
        return self._take(document)

    def _take(self, document: Document) -> Table:
        self.diagnostics += document.diagnostics
        if any(diagnostic.code == codes.SYNTAX for diagnostic in document.diagnostics):
            self.complete = False
        return document.table

    def _extends(self, table: Table) -> list[tuple[str, Span]]:
        node = table.entries.get("extends")
        if node is None:
            return []
        names = []
        for item in node.items if isinstance(node, Array) else [node]:
            if isinstance(item, Scalar) and isinstance(item.value, str) and isinstance(node, Array):
                names.append((item.value, item.span))
            else:
                cure = 'write `extends = ["base.toml", "preset:tiny"]`'
                self._report(codes.WRONG_TYPE, "`extends` takes an array of strings", item.span, cure)
        return names

    def _preset(self, name: str, asked: Span) -> None:
        table = self._read_preset(name, asked, self.diagnostics)
        self.complete = self.complete and table is not None
        if table is not None:
            self.presets.append(self._layer(table))

    def _read_preset(self, name: str, asked: Span, found: list[Diagnostic]) -> Table | None:
        known = known_presets()
        if name not in known:
            near = get_close_matches(name, known, 1)
            cure = f"did you mean `{near[0]}`?" if near else f"known presets: {', '.join(known)}"
            found.append(Diagnostic(codes.UNKNOWN_PRESET, f"unknown preset `{name}`", asked, cure))
            return None
        file = f"preset:{name}"
        self.sources[file] = preset_text(name)
        return self._take(parse(self.sources[file], file, lambda span: Origin("preset", file, span)))

    # --- overrides ---------------------------------------------------------------------------------------------------

    def _environment(self, environ: Mapping[str, str]) -> list[Table]:
        names = sorted(name for name in environ if name.startswith(ENVIRONMENT_PREFIX))
        self._show("environment", [f"{name}={environ[name]}" for name in names])
        layers, line = [], 1
        for name in names:
            path = name.removeprefix(ENVIRONMENT_PREFIX).split("__")
            span = Span("environment", line, 1, line, len(name) + 1)
            origin = Origin("environment", name, span)
            if all(path):
                layers.append(_override(path, span, environ[name], len(name) + 2, origin))
            else:
                self._report(
                    codes.BAD_OVERRIDE, f"`{name}` names no key", span, f"write {ENVIRONMENT_PREFIX}a__b=VALUE"
                )
            line += 1 + environ[name].count("\n")
        return layers

    def _command_line(self, sets: Sequence[str]) -> list[Table]:
        self._show("-s", sets)
        layers, line = [], 1
        for text in sets:
            key, equals, value = text.partition("=")
            path = key_path(key)
            span = Span("-s", line, 1, line, len(key.rstrip()) + 1)
            if path and equals:
                origin = Origin("command line", f"-s {' '.join(text.split())}", span)
                layers.append(_override(path, span, value, len(key) + 2, origin))
            else:
                shown = Span("-s", line, 1, line, len(text.split("\n")[0]) + 1)
                self._report(codes.BAD_OVERRIDE, f"`-s {text}` is not `KEY=VALUE`", shown, "write -s a.b=VALUE")
            line += 1 + text.count("\n")
        return layers

    def _show(self, file: str, lines: Sequence[str]) -> None:
        if lines:
            self.sources[file] = "\n".join(lines)

    def _report(
        self, code: str, message: str, span: Span | None, help: str | None = None, labels: tuple[Label, ...] = ()
    ) -> None:
        self.diagnostics.append(Diagnostic(code, message, span, help, labels))
        self.complete = False


def _override(path: Sequence[str], key: Span, value: str, column: int, origin: Origin) -> Table:
    """A layer with one value, whose text begins at `column`. What is not TOML is a string."""
    line = f"{'_' * (column - 2)}={value}"  # the key hidden, so that columns are true
    document = parse(line, key.file, lambda span: Origin(origin.kind, origin.text, span), key.line)
    nodes = list(document.table.entries.values())
    if not document.diagnostics and len(nodes) == 1:
        node: Node = nodes[0]
        node.key = key
    else:
        start = column + len(value) - len(value.lstrip())
        lines = value.strip().split("\n")
        end_column = len(lines[-1]) + (start if len(lines) == 1 else 1)
        span = Span(key.file, key.line, start, key.line + len(lines) - 1, end_column)
        node = Scalar(value.strip(), span, key, Origin(origin.kind, origin.text, span))
    return nested(path, node)


def _merged(layers: Sequence[Table], problems: list[Diagnostic]) -> Table:
    """The layers on top of each other, the first one lowest."""
    tree: Node = Table({}, Span("", 1, 1, 1, 1), None, Origin("default", "default"))
    for layer in layers:
        tree = _overlay(tree, spelled_out(layer), problems)
    assert isinstance(tree, Table)
    return tree


def _mistakes_of_idle(conditional: Conditional, tree: Table) -> list[Diagnostic]:
    """What would be wrong with its values if it applied, so that it is not first seen on the other cluster."""
    problems: list[Diagnostic] = []
    tried = _merged([tree, *conditional.values], problems)
    found = read(tried, Spec, complete=False).diagnostics
    nodes = [node for values in conditional.values for _, node in walk(values)]
    own = {node.span for node in nodes} | {node.key for node in nodes}
    return [each for each in problems + found if each.span in own]


def _overlay(lower: Node, upper: Node, problems: list[Diagnostic]) -> Node:
    """`upper` on top of `lower`."""
    if not isinstance(upper, Table):
        return upper
    written = upper.origin.kind in ("preset", "file")
    if isinstance(lower, Table):
        entries = dict(lower.entries)
        for name, node in upper.entries.items():
            entries[name] = _overlay(entries[name], node, problems) if name in entries else node
        place = upper if written or lower.origin.kind == "default" else lower
        return Table(entries, place.span, place.key, place.origin)
    if isinstance(lower, Array) and not written:
        items = list(lower.items)
        for name, node in upper.entries.items():
            index = _element(lower, name)
            if index is None:
                problems.append(_no_element(lower, name, node))
            else:
                items[index] = _overlay(items[index], node, problems)
        return Array(items, lower.span, lower.key, lower.origin)
    return upper


def _element(array: Array, name: str) -> int | None:
    """The index of the element that is called `name`, or whose index it is."""
    for index, item in enumerate(array.items):
        if _name(item) == name:
            return index
    return int(name) if name.isdecimal() and int(name) < len(array.items) else None


def _name(item: Node) -> str | None:
    node = item.entries.get("name") if isinstance(item, Table) else None
    return node.value if isinstance(node, Scalar) and isinstance(node.value, str) else None


def _no_element(array: Array, name: str, node: Node) -> Diagnostic:
    names = [found for item in array.items if (found := _name(item))]
    said = ", ".join(f"`{found}`" for found in names) or f"0 to {len(array.items) - 1}"
    return Diagnostic(
        codes.BAD_OVERRIDE, f"there is no element `{name}`", node.key or node.span, f"the elements are {said}"
    )


def _at(tree: Node, path: Sequence[str]) -> Node | None:
    """What stands at the path, whose parts may name elements of arrays."""
    node: Node | None = tree
    for name in path:
        if isinstance(node, Array):
            index = _element(node, name)
            node = node.items[index] if index is not None else None
        else:
            node = node.entries.get(name) if isinstance(node, Table) else None
    return node


def _is_varied(tree: Table, path: Sequence[str]) -> bool:
    """Whether what a matrix put there is left in the tree, so that no later layer replaced it."""
    node = _at(tree, path)
    return node is not None and any(each.origin.kind == "matrix" for _, each in walk(node))


def _rename(tree: Table, end: str) -> str:
    """The name of the member's run, which is new in the tree."""
    run, name = _at(tree, ("run",)), _at(tree, ("run", "name"))
    if not (isinstance(run, Table) and isinstance(name, Scalar) and isinstance(name.value, str)):
        return end  # what is wrong with the name is told where the tree is read
    full = f"{name.value}-{end}" if end else name.value
    origin = Origin("matrix", f"{name.origin.text} and its values", name.span)
    named = Scalar(full, name.span, name.key, origin if end else name.origin)
    tree.entries["run"] = Table(run.entries | {"name": named}, run.span, run.key, run.origin)
    return full
