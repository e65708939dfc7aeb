"""Diagnostics as text for people, JSON for programs and annotations for GitHub. Pure: nothing here prints."""

import unicodedata
from collections.abc import Mapping, Sequence

import msgspec

from trainwright.spec.codes import CODES
from trainwright.spec.diagnostics import Diagnostic, Label, Severity, Span

_TAB = "    "
_COLORS = {"error": "\x1b[1;31m", "warning": "\x1b[1;33m", "note": "\x1b[1;36m"}
_GUTTER, _BOLD, _PLAIN = "\x1b[1;34m", "\x1b[1m", "\x1b[0m"
_MOST_MEMBERS = 4  # of a sweep, that are named
_PSEUDO_FILES = ("-s", "environment")


def render_text(diagnostics: Sequence[Diagnostic], sources: Mapping[str, str], color: bool = False) -> str:
    """The diagnostics as a terminal shows them, each with its source lines, and how many there are."""
    painter = _Painter(color)
    blocks = [_block(diagnostic, sources, painter) for diagnostic in diagnostics]
    return "\n".join([*blocks, painter.paint(_summary(diagnostics), _BOLD)])


def render_json(diagnostics: Sequence[Diagnostic]) -> str:
    """A JSON array with an object per diagnostic; `schemas/diagnostics.schema.json` describes it."""
    return msgspec.json.format(msgspec.json.encode(list(diagnostics)), indent=2).decode()


def render_github(diagnostics: Sequence[Diagnostic]) -> str:
    """Workflow commands, one a line, that GitHub shows beside the lines they are about."""
    return "".join(_annotation(diagnostic) + "\n" for diagnostic in diagnostics)


# --- terminal --------------------------------------------------------------------------------------------------------


class _Painter:
    def __init__(self, color: bool) -> None:
        self.color = color

    def paint(self, words: str, style: str) -> str:
        return f"{style}{words}{_PLAIN}" if self.color and words else words


def _block(diagnostic: Diagnostic, sources: Mapping[str, str], painter: _Painter) -> str:
    style = _COLORS[diagnostic.severity]
    head = painter.paint(f"{diagnostic.severity}[{diagnostic.code}]", style)
    lines = [head + painter.paint(f": {_visible(diagnostic.message)}", _BOLD)]
    margin = " " * _margin(diagnostic)
    if diagnostic.span:
        lines += _excerpts(diagnostic.span, diagnostic.labels, sources, painter, style, margin)
    if diagnostic.help:
        first, *others = (_visible(line) for line in diagnostic.help.split("\n"))
        lines.append(f"{margin} {painter.paint('=', _GUTTER)} {painter.paint('help', _BOLD)}: {first}")
        lines += [f"{margin}         {line}" for line in others]
    if diagnostic.members:
        lines.append(f"{margin} {painter.paint('=', _GUTTER)} {_members(diagnostic)}")
    return "\n".join(lines) + "\n"


def _members(diagnostic: Diagnostic) -> str:
    """Which members of a sweep have the mistake."""
    shown = ", ".join(diagnostic.members[:_MOST_MEMBERS])
    more = len(diagnostic.members) - _MOST_MEMBERS
    return f"only in {shown}" + (f" and {more} more" if more > 0 else "")


def _margin(diagnostic: Diagnostic) -> int:
    spans = [diagnostic.span, *(label.span for label in diagnostic.labels)]
    return max((len(str(span.line)) for span in spans if span), default=1)


def _excerpts(
    span: Span,
    labels: tuple[Label, ...],
    sources: Mapping[str, str],
    painter: _Painter,
    style: str,
    margin: str,
) -> list[str]:
    """The place, the lines around it in order, and the places of other files below."""
    bar = painter.paint("|", _GUTTER)
    lines = [f"{margin}{painter.paint('-->', _GUTTER)} {_place(span)}"]
    here = sorted([(span, "^", "", style), *((label.span, "-", label.text, _GUTTER) for label in _in(span, labels))])
    shown = [_underlined(*mark, sources, painter, margin) for mark in here if not _is_whole_file(mark[0])]
    if any(shown):
        lines.append(f"{margin} {bar}")
    for before, (mark, excerpt) in enumerate(zip(here, shown, strict=False)):
        if before and mark[0].line > here[before - 1][0].line + 1 and excerpt:
            lines.append(painter.paint("...", _GUTTER))
        lines += excerpt
    for label in labels:
        if label.span.file != span.file:
            lines.append(f"{margin}{painter.paint(':::', _GUTTER)} {_place(label.span)}")
            lines.append(f"{margin} {bar}")
            lines += _underlined(label.span, "-", label.text, _GUTTER, sources, painter, margin)
    return lines


def _in(span: Span, labels: tuple[Label, ...]) -> list[Label]:
    return [label for label in labels if label.span.file == span.file]


def _underlined(
    span: Span, sign: str, words: str, style: str, sources: Mapping[str, str], painter: _Painter, margin: str
) -> list[str]:
    """The source line with the span drawn under it; nothing if the text is not known."""
    lines = sources.get(span.file, "").split("\n")
    if span.line > len(lines) or span.file not in sources:
        return []
    line = lines[span.line - 1].rstrip("\r")
    end_column = span.end_column if span.end_line == span.line else len(line) + 1
    before, marked = line[: span.column - 1], line[span.column - 1 : end_column - 1]
    number = painter.paint(str(span.line).rjust(len(margin)), _GUTTER)
    bar = painter.paint("|", _GUTTER)
    underline = painter.paint(f"{sign * max(_width(marked), 1)}{' ' + words if words else ''}", style)
    return [
        f"{number} {bar} {_visible(line)}",
        f"{margin} {bar} {' ' * _width(before)}{underline}",
    ]


def _place(span: Span) -> str:
    return f"{span.file}:{span.line}:{span.column}"


def _is_whole_file(span: Span) -> bool:
    return (span.line, span.column) == (span.end_line, span.end_column)


def _visible(line: str) -> str:
    """The line with tabs spread, and with pictures of control characters instead of what they do to a terminal."""
    return "".join(_TAB if sign == "\t" else chr(0x2400 + ord(sign)) if sign < " " else sign for sign in line)


def _width(words: str) -> int:
    """Terminal cells: two for wide characters, none for combining ones."""
    return sum(_cells(character) for character in words)


def _cells(character: str) -> int:
    if character == "\t":
        return len(_TAB)
    if unicodedata.combining(character) or unicodedata.category(character) in ("Cf", "Me", "Mn"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _summary(diagnostics: Sequence[Diagnostic]) -> str:
    parts = []
    kinds: tuple[Severity, ...] = ("error", "warning", "note")
    for kind in kinds:
        count = sum(diagnostic.severity == kind for diagnostic in diagnostics)
        if count:
            parts.append(f"{count} {kind}{'s' if count > 1 else ''}")
    return ", ".join(parts)


# --- GitHub ----------------------------------------------------------------------------------------------------------


def _annotation(diagnostic: Diagnostic) -> str:
    row = CODES.get(diagnostic.code)
    command = "notice" if diagnostic.severity == "note" else diagnostic.severity
    properties = {}
    span = diagnostic.span
    if span and span.file not in _PSEUDO_FILES and not span.file.startswith("preset:"):
        properties = {
            "file": span.file,
            "line": str(span.line),
            "endLine": str(span.end_line),
            "col": str(span.column),
            "endColumn": str(span.end_column),
        }
    properties["title"] = f"{diagnostic.code} {row.name}" if row else diagnostic.code
    said = ",".join(f"{name}={_escaped(value, ':,')}" for name, value in properties.items())
    message = diagnostic.message + (f"\nhelp: {diagnostic.help}" if diagnostic.help else "")
    message += f"\n{_members(diagnostic)}" if diagnostic.members else ""
    return f"::{command} {said}::{_escaped(message)}"


def _escaped(words: str, also: str = "") -> str:
    return "".join(f"%{ord(sign):02X}" if sign in "%\r\n" + also else sign for sign in words)
