"""TOML text -> a tree of nodes with exact spans.

tree-sitter gives the places, the standard library's `tomllib` the last word on what is valid and on values that are
not plain. Columns count characters; lines end at "\\n".
"""

import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import tree_sitter_toml
from tree_sitter import Language, Parser
from tree_sitter import Node as Syntax

from trainwright.spec import codes, syntax
from trainwright.spec.diagnostics import Diagnostic, Label, Origin, Span
from trainwright.spec.tree import Array, Node, Scalar, ScalarValue, Table

_KEYS = ("bare_key", "quoted_key", "dotted_key")
_DATES = ("offset_date_time", "local_date_time", "local_date", "local_time")
_VALUES = ("string", "integer", "float", "boolean", "array", "inline_table", *_DATES)


@dataclass(frozen=True)
class Document:
    """What could be read of a text. `diagnostics` holds its syntax errors; what they touch is not in `table`."""

    table: Table
    diagnostics: list[Diagnostic]


def parse(text: str, file: str, origin: Callable[[Span], Origin], first_line: int = 1) -> Document:
    """The tree of `text`, which stands in `file` from `first_line` on; `origin` says where a span comes from."""
    text = text.replace("\r\n", "\n")
    diagnostics: list[Diagnostic] = []
    refusal: Exception | None = None
    readable = text
    try:
        tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: not TOML, or an integer longer than Python reads
        refusal = error
        diagnostics, readable = syntax.check(text, file, first_line)
    builder = _Builder(readable, file, origin, first_line)
    builder.build()
    diagnostics += builder.diagnostics
    if refusal and not diagnostics:
        diagnostics.append(syntax.locate(refusal, text, file, first_line))
    diagnostics.sort(key=lambda diagnostic: (diagnostic.span is None, diagnostic.span))
    return Document(builder.root, diagnostics)


@dataclass(frozen=True)
class _Part:
    """One part of a key."""

    name: str
    span: Span


# How a table came into being decides who may add to it: a header's path (`implicit`), a header, the dotted key of a
# section (only in that section), braces (nobody).
_Made = Literal["implicit", "header", "dotted", "inline", "root"]


class _Builder:
    def __init__(self, text: str, file: str, origin: Callable[[Span], Origin], first_line: int) -> None:
        self.source = text.encode()
        self.lines = self.source.split(b"\n")
        self.file = file
        self.origin = origin
        self.first_line = first_line
        self.diagnostics: list[Diagnostic] = []
        start = Span(file, first_line, 1, first_line, 1)
        self.root = Table({}, start, None, origin(start))
        self.made: dict[int, tuple[_Made, int]] = {id(self.root): ("root", 0)}
        self.of_tables: set[int] = set()  # arrays made by `[[name]]`
        self.section = 0
        self.sections = 0
        self.repeated_section = False

    def build(self) -> None:
        parser = Parser(Language(tree_sitter_toml.language()))
        table = self.root
        for syntax_node in parser.parse(self.source).root_node.named_children:
            if syntax_node.type == "pair":
                self._pair(syntax_node, table)
            elif syntax_node.type in ("table", "table_array_element"):
                self._open_section()
                self.repeated_section = False
                table = self._header(syntax_node)
                for child in syntax_node.named_children:
                    if child.type == "pair":
                        self._pair(child, table)

    # --- headers and pairs -------------------------------------------------------------------------------------------

    def _header(self, header: Syntax) -> Table:
        """The table that the header opens; one aside if it must not."""
        of_tables = header.type == "table_array_element"
        parts = self._parts(next(child for child in header.named_children if child.type in _KEYS))
        brackets = [child for child in header.children if child.type in ("[", "[[", "]", "]]")]
        span = self._span(brackets[0], brackets[-1])
        table = self.root
        for part in parts[:-1]:
            following = self._descend(table, part)
            if following is None:
                return self._aside(span)
            table = following
        last = parts[-1]
        found = table.entries.get(last.name)
        if of_tables and isinstance(found, Array) and id(found) in self.of_tables:
            item = self._table(span, last.span, "header")
            found.items.append(item)
            return item
        if of_tables and found is None:
            item = self._table(span, last.span, "header")
            array = Array([item], span, last.span, self.origin(span))
            self.of_tables.add(id(array))
            table.entries[last.name] = array
            return item
        if found is None:
            opened = self._table(span, last.span, "header")
            table.entries[last.name] = opened
            return opened
        if isinstance(found, Table) and not of_tables:
            if self._how(found) == "implicit":
                self.made[id(found)] = ("header", self.section)
                found.span, found.key, found.origin = span, last.span, self.origin(span)
                return found
            self._duplicate(last, found, "table")
            if self._how(found) == "inline":
                return self._aside(span)
            self.repeated_section = True
            return found
        self._duplicate(last, found, "table")
        return self._aside(span)

    def _descend(self, table: Table, part: _Part) -> Table | None:
        """The table that a header's path leads through."""
        found = table.entries.get(part.name)
        if found is None:
            implicit = self._table(part.span, part.span, "implicit")
            table.entries[part.name] = implicit
            return implicit
        if isinstance(found, Array) and id(found) in self.of_tables:
            last = found.items[-1]
            assert isinstance(last, Table)
            return last
        if isinstance(found, Table) and self._how(found) != "inline":
            return found
        self._duplicate(part, found, "table")
        return None

    def _pair(self, pair: Syntax, table: Table) -> None:
        key = next((child for child in pair.children if child.type in _KEYS), None)
        value = next((child for child in pair.children if child.type in _VALUES), None)
        if key is None or value is None:
            return
        parts = self._parts(key)
        for part in parts[:-1]:
            found = table.entries.get(part.name)
            if found is None:
                found = self._table(part.span, part.span, "dotted")
                table.entries[part.name] = found
            elif not isinstance(found, Table) or not self._dotted_may_extend(found):
                self._duplicate(part, found, "key")
                return
            table = found
        last = parts[-1]
        found = table.entries.get(last.name)
        if found is None:
            table.entries[last.name] = self._value(value, last.span)
        elif not self.repeated_section:
            self._duplicate(last, found, "key")

    def _dotted_may_extend(self, table: Table) -> bool:
        made, section = self.made[id(table)]
        if made == "implicit":
            self.made[id(table)] = ("dotted", self.section)
            return True
        return made == "dotted" and section == self.section

    def _open_section(self) -> None:
        self.sections += 1
        self.section = self.sections

    def _how(self, table: Table) -> _Made:
        return self.made[id(table)][0]

    def _table(self, span: Span, key: Span | None, made: _Made) -> Table:
        table = Table({}, span, key, self.origin(span))
        self.made[id(table)] = (made, self.section)
        return table

    def _aside(self, span: Span) -> Table:
        """A table outside of the tree: what stands under a header that may not be there is read and dropped."""
        self.repeated_section = True
        return self._table(span, None, "header")

    def _duplicate(self, part: _Part, first: Node, what: str) -> None:
        label = Label(first.key or first.span, "first here")
        self.diagnostics.append(
            Diagnostic(codes.DUPLICATE_KEY, f"{what} `{part.name}` is defined twice", part.span, labels=(label,))
        )

    # --- keys and values ---------------------------------------------------------------------------------------------

    def _parts(self, key: Syntax) -> list[_Part]:
        if key.type == "dotted_key":
            return [part for child in key.named_children for part in self._parts(child)]
        text = self._text(key)
        name = text if key.type == "bare_key" else str(_string(text))
        return [_Part(name, self._span(key))]

    def _value(self, value: Syntax, key: Span | None) -> Node:
        span = self._span(value)
        if value.type == "array":
            items = [self._value(child, None) for child in value.named_children if child.type in _VALUES]
            return Array(items, span, key, self.origin(span))
        if value.type == "inline_table":
            table = self._table(span, key, "inline")
            around = self.section
            self._open_section()
            for child in value.named_children:
                if child.type == "pair":
                    self._pair(child, table)
            self.section = around
            self._close(table)
            return table
        return Scalar(_scalar(value.type, self._text(value)), span, key, self.origin(span))

    def _close(self, table: Table) -> None:
        """Nobody may add to an inline table, nor to the tables in it."""
        self.made[id(table)] = ("inline", self.section)
        for child in table.entries.values():
            if isinstance(child, Table):
                self._close(child)

    def _text(self, node: Syntax) -> str:
        return self.source[node.start_byte : node.end_byte].decode()

    def _span(self, first: Syntax, last: Syntax | None = None) -> Span:
        start, end = first.start_point, (last or first).end_point
        return Span(self.file, *self._place(start), *self._place(end))

    def _place(self, point: Any) -> tuple[int, int]:
        row, column_bytes = point
        return self.first_line + row, len(self.lines[row][:column_bytes].decode()) + 1


def key_path(key: str) -> list[str] | None:
    """The parts of a dotted key, None if it is not one; `phases[0].tokens` is read as `phases.0.tokens`."""
    if not ('"' in key or "'" in key):
        key = re.sub(r"\[(\d+)\]", r".\1", key)
    try:
        node = tomllib.loads(f"{key}=0")
    except tomllib.TOMLDecodeError:
        return None
    path = []
    while isinstance(node, dict):
        name, node = next(iter(node.items()))
        path.append(name)
    return path


def _scalar(kind: str, text: str) -> ScalarValue:
    if kind == "string":
        return _string(text)
    if kind == "integer":
        return int(text.replace("_", ""), 0)
    if kind == "float":
        return float(text.replace("_", ""))
    if kind == "boolean":
        return text == "true"
    return _by_tomllib(text)


def _string(text: str) -> str:
    simple = "\\" not in text and not text.startswith(('"""', "'''"))
    return text[1:-1] if simple else str(_by_tomllib(text))


def _by_tomllib(text: str) -> ScalarValue:
    value: ScalarValue = tomllib.loads("value = " + text)["value"]
    return value
