"""What is wrong with a text that is not TOML: one report per broken statement, each at its place.

A text is cut into statements (a header, or a key with its value); `tomllib` judges each one alone. So one broken
statement hides no other.
"""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from trainwright.spec import codes
from trainwright.spec.diagnostics import Diagnostic, Span

_KEY = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')"""
_HEADER_LINE = re.compile(r"[ \t]*\[\[?[ \t]*(?![\d+-]|true\b|false\b)[A-Za-z_][^\]=,\n]*\]\]?[ \t]*(?:#.*)?$", re.M)
_PAIR_LINE = re.compile(rf"[ \t]*{_KEY}(?:[ \t]*\.[ \t]*{_KEY})*[ \t]*=")
_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_QUOTES = ('"""', "'''", '"', "'")
_BAD_KEYS = ("invalid statement", "invalid initial character for a key part")
_DELIMITERS = frozenset(" \t\r\n,={}[]\"'#")


class Problem(NamedTuple):
    """What is wrong with text[start:end], and how to cure it."""

    start: int
    end: int
    message: str
    cure: str | None = None

    def shifted(self, by: int) -> "Problem":
        return self._replace(start=self.start + by, end=self.end + by)


@dataclass(frozen=True)
class Statement:
    """text[start:end], and what the scan itself found wrong with it."""

    start: int
    end: int
    problem: Problem | None = None


def check(text: str, file: str, first_line: int) -> tuple[list[Diagnostic], str]:
    """A report per broken statement, and the text with those blanked; columns and lines stay where they were.

    A broken header takes the statements under it along: nobody knows which table they belong to.
    """
    diagnostics: list[Diagnostic] = []
    if text.startswith("\ufeff"):
        span = Span(file, first_line, 1, first_line, 2)
        message = "the text begins with a byte order mark"
        diagnostics.append(Diagnostic(codes.SYNTAX, message, span, "save the file as UTF-8 without one"))
        text = " " + text[1:]
    kept = text
    orphaned = False
    for statement in _statements(text):
        body = text[statement.start : statement.end]
        is_header = body.lstrip().startswith("[")
        orphaned = orphaned and not is_header
        problem = statement.problem or _judge(body, statement.start)
        if problem:
            end = max(problem.end, problem.start + 1)
            span = Span(file, *_place(text, problem.start, first_line), *_place(text, end, first_line))
            diagnostics.append(Diagnostic(codes.SYNTAX, problem.message, span, problem.cure))
            orphaned = orphaned or is_header
        if problem or orphaned:
            kept = kept[: statement.start] + re.sub(r"[^\n]", " ", body) + kept[statement.end :]
    return diagnostics, kept


def locate(error: Exception, text: str, file: str, first_line: int) -> Diagnostic:
    """What `tomllib` says about a whole text, at the place it names."""
    message, offset = _message(error, text)
    place = _place(text, offset, first_line)
    return Diagnostic(codes.SYNTAX, message, Span(file, *place, place[0], place[1] + 1))


def _place(text: str, offset: int, first_line: int) -> tuple[int, int]:
    line_start = text.rfind("\n", 0, offset) + 1
    return first_line + text.count("\n", 0, offset), offset - line_start + 1


def _statements(text: str) -> Iterator[Statement]:
    position = 0
    while position < len(text):
        end_of_line = _line_end(text, position)
        line = text[position:end_of_line].strip()
        if not line or line.startswith("#"):
            yield Statement(position, end_of_line)  # comments may hold characters that TOML forbids
            position = end_of_line + 1
            continue
        statement = _statement(text, position)
        yield statement
        position = statement.end + 1


def _statement(text: str, start: int) -> Statement:
    """The statement that begins at `start`; it ends at the first newline outside of strings and brackets."""
    header = text[start : _line_end(text, start)].lstrip().startswith("[")
    opened: list[int] = []
    position = start
    while position < len(text):
        character = text[position]
        if character == "#":
            position = _line_end(text, position)
        elif character in "\"'":
            quote = next(quote for quote in _QUOTES if text.startswith(quote, position))
            end = _string_end(text, position, quote)
            if end is None:
                stop = len(text) if len(quote) == 3 else _line_end(text, position)
                shown = _line_end(text, position)
                problem = Problem(position, shown, "this string is never closed", f"close it with `{quote}`")
                return Statement(start, stop, problem)
            position = end
        elif character in "[{" and not header:
            opened.append(position)
            position += 1
        elif character in "]}" and opened:
            opened.pop()
            position += 1
        elif character == "\n":
            if not opened:
                return Statement(start, position)
            innermost = text[opened[-1]]
            position += 1
            in_array = innermost == "["
            if _HEADER_LINE.match(text, position) or (in_array and _PAIR_LINE.match(text, position)):
                return _unclosed(text, start, opened[-1], position - 1)
        else:
            position += 1
    return _unclosed(text, start, opened[-1], len(text)) if opened else Statement(start, len(text))


def _unclosed(text: str, start: int, bracket: int, end: int) -> Statement:
    closing, what = ("]", "array") if text[bracket] == "[" else ("}", "inline table")
    if what == "inline table":
        end = _line_end(text, bracket)  # it cannot span lines: what follows are statements of their own
    problem = Problem(bracket, bracket + 1, f"this {what} is never closed", f"close it with `{closing}`")
    return Statement(start, end, problem)


def _string_end(text: str, start: int, quote: str) -> int | None:
    """The offset after the string's closing quote, or None if it has none."""
    position = start + len(quote)
    while position < len(text):
        if quote[0] == '"' and text[position] == "\\":
            position += 2
        elif text.startswith(quote, position):
            position += len(quote)
            for _ in range(2 if len(quote) == 3 else 0):  # up to two quotes may stand before the closing three
                position += text.startswith(quote[0], position)
            return position
        elif text[position] == "\n" and len(quote) == 1:
            return None
        else:
            position += 1
    return None


def _line_end(text: str, position: int) -> int:
    end = text.find("\n", position)
    return len(text) if end < 0 else end


def _judge(body: str, base: int) -> Problem | None:
    """What `tomllib` has against one statement, which begins at `base` of the whole text."""
    try:
        tomllib.loads(body)
    except (ValueError, RecursionError) as error:
        message, offset = _message(error, body)
    else:
        return None
    if message.startswith(("cannot ", "duplicate ")):
        return None  # both places are known once the tree is built
    return _explained(body, offset, message).shifted(base)


def _explained(body: str, offset: int, message: str) -> Problem:
    """The refusal of a statement in words that fit what people usually mean by it."""
    brace = _open_brace(body, offset)
    if brace is not None and "\n" in body[brace:]:
        cure = "write it as a `[table]` of its own, or on one line"
        return Problem(brace, brace + 1, "an inline table must stand on one line", cure)
    if message.startswith("unescaped"):
        backslash = body.rfind("\\", 0, offset)
        cure = "write two of them, or the string in single quotes"
        return Problem(backslash, backslash + 2, "a backslash that begins no escape", cure)
    start, end = _word(body, offset)
    word, before = body[start:end], body[:start].rstrip(" \t")
    if message.startswith("expected newline") and (start == end or body[offset] == ";"):
        rest = body[offset : _line_end(body, offset)].rstrip()
        cure = "a line holds one `key = value`, and perhaps a comment"
        return Problem(offset, offset + len(rest), "nothing may follow the value on its line", cure)
    if message in _BAD_KEYS and body[offset : offset + 1] == "}" and body[:offset].rstrip().endswith(","):
        comma = len(body[:offset].rstrip()) - 1
        return Problem(comma, comma + 1, "an inline table takes no comma at its end", "take it out")
    if message in _BAD_KEYS and word:
        cure = "keys of other characters than A to Z, digits, `-` and `_` stand in quotes"
        return Problem(start, end, f"`{word}` is not a key", cure)
    if word in ("True", "False"):
        return Problem(start, end, f"`{word}` is not a TOML value", f"write `{word.lower()}`")
    if word and before.endswith(("=", "[", ",")) and not body.lstrip().startswith("["):
        cure = f'strings and quantities stand in quotes: `"{word}"`'
        return Problem(start, end, f"`{word}` is not a TOML value", cure)
    if message == "invalid value" and before.endswith("="):
        return Problem(len(before) - 1, len(before), "a value is missing after `=`")
    if word.endswith(":") and message.startswith("expected `=`"):
        return Problem(start, end, message, f"TOML writes `{word[:-1]} = ...`, and `[{word[:-1]}]` for a table")
    return Problem(start, max(end, offset + 1), message)


def _word(body: str, offset: int) -> tuple[int, int]:
    """The run of characters around `offset` that no space, bracket, quote, comma or `=` interrupts; empty on one."""
    if body[offset : offset + 1] in _DELIMITERS:
        return offset, offset
    start = end = offset
    while start > 0 and body[start - 1] not in _DELIMITERS:
        start -= 1
    while end < len(body) and body[end] not in _DELIMITERS:
        end += 1
    return start, end


def _open_brace(body: str, offset: int) -> int | None:
    """The innermost `{` that is still open at `offset`."""
    opened = []
    position = 0
    while position < min(offset + 1, len(body)):
        quote = next((quote for quote in _QUOTES if body.startswith(quote, position)), None)
        if quote:
            position = _string_end(body, position, quote) or len(body)
            continue
        if body[position] == "{":
            opened.append(position)
        elif body[position] == "}" and opened:
            opened.pop()
        position += 1
    return opened[-1] if opened else None


def _message(error: Exception, text: str) -> tuple[str, int]:
    """The sentence in our style, and the offset that it is about."""
    if not isinstance(error, tomllib.TOMLDecodeError):
        return "the value is nested too deeply, or a number too long, to be read", 0
    said = str(error)
    place = _PLACE.search(said)
    message = _PLACE.sub("", said)
    message = re.sub(r"'(.)'", r"`\1`", message[:1].lower() + message[1:])
    if place is None or place[1] is None:
        return message, len(text.rstrip())
    lines = text.split("\n")
    line, column = int(place[1]), int(place[2])
    return message, sum(len(before) + 1 for before in lines[: line - 1]) + column - 1
