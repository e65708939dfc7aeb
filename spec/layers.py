"""The layers of a spec, merged: preset < extends < file < environment < command line. Defaults come last, in `read`.

Tables merge key by key; anything else replaces what lies below. An override may address the element of an array by
its index or its name: `phases.short.tokens`.
"""

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from trainwright.spec import codes
from trainwright.spec.auto import spelled_out
from trainwright.spec.diagnostics import Diagnostic, Label, Origin, Span
from trainwright.spec.toml import Document, parse
from trainwright.spec.tree import Array, Node, Scalar, Table

ENVIRONMENT_PREFIX = "TRAINWRIGHT_SET__"
_PRESETS = Path(__file__).parent / "presets"


def known_presets() -> list[str]:
    """The names that `preset:NAME` and `[model] preset` know, sorted."""
    return sorted(file.stem for file in _PRESETS.glob("*.toml"))


def preset_text(name: str) -> str:
    """The TOML text of a known preset."""
    return (_PRESETS / f"{name}.toml").read_text(encoding="utf-8")


@dataclass
class Gathered:
    """The merged tree, what went wrong on the way, and the texts that spans point into."""

    tree: Table
    diagnostics: list[Diagnostic] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)
    files: tuple[Path, ...] = ()  # all that were read, presets not counted
    complete: bool = True  # False: parts are missing because of the diagnostics, so absence proves nothing


def gather(path: Path, sets: Sequence[str], environ: Mapping[str, str]) -> Gathered:
    """All layers of the spec at `path`, merged."""
    return _Gatherer().gather(path, sets, environ)


class _Gatherer:
    def __init__(self) -> None:
        self.diagnostics: list[Diagnostic] = []
        self.sources: dict[str, str] = {}
        self.complete = True
        self.presets: list[Table] = []
        self.files: list[Table] = []
        self.documents: dict[Path, Table | None] = {}

    def gather(self, path: Path, sets: Sequence[str], environ: Mapping[str, str]) -> Gathered:
        self._file(path, None, ())
        overrides = self._environment(environ) + self._command_line(sets)
        tree = self._merge(overrides, report=False)
        preset = _at(tree, "model", "preset")
        if isinstance(preset, Scalar) and isinstance(preset.value, str):
            self._model_preset(preset.value, preset.span)
        merged = self._merge(overrides, report=True)
        return Gathered(merged, self.diagnostics, self.sources, tuple(self.documents), self.complete)

    def _merge(self, overrides: list[Table], report: bool) -> Table:
        tree: Node = Table({}, Span("", 1, 1, 1, 1), None, Origin("default", "default"))
        problems: list[Diagnostic] = []
        for layer in self.presets + self.files + overrides:
            tree = _overlay(tree, spelled_out(layer), problems)
        if report:
            self.diagnostics += problems
        assert isinstance(tree, Table)
        return tree

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
        entries = {name: node for name, node in table.entries.items() if name != "extends"}
        self.files.append(Table(entries, table.span, table.key, table.origin))

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
        table = self._read_preset(name, asked)
        if table is not None:
            self.presets.append(table)

    def _model_preset(self, name: str, asked: Span) -> None:
        table = self._read_preset(name, asked)
        model = table.entries.get("model") if table else None
        if table and model:
            self.presets.append(Table({"model": model}, table.span, table.key, table.origin))

    def _read_preset(self, name: str, asked: Span) -> Table | None:
        known = known_presets()
        if name not in known:
            near = get_close_matches(name, known, 1)
            cure = f"did you mean `{near[0]}`?" if near else f"known presets: {', '.join(known)}"
            self._report(codes.UNKNOWN_PRESET, f"unknown preset `{name}`", asked, cure)
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
            path = _key_path(key)
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


def _key_path(key: str) -> list[str] | None:
    """The parts of a dotted key, None if it is not one."""
    try:
        node = tomllib.loads(f"{key}=0")
    except tomllib.TOMLDecodeError:
        return None
    path = []
    while isinstance(node, dict):
        name, node = next(iter(node.items()))
        path.append(name)
    return path


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
    for name in reversed(path):
        node = Table({name: node}, key, key, origin)
    assert isinstance(node, Table)
    return node


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


def _at(tree: Node, *path: str) -> Node | None:
    node: Node | None = tree
    for name in path:
        node = node.entries.get(name) if isinstance(node, Table) else None
    return node
