"""The reader gives what `tomllib` gives, refuses what it refuses, and knows where everything stands."""

import math
import random
import tomllib
from pathlib import Path

import pytest

from trainwright.spec import codes
from trainwright.spec.diagnostics import Origin, Span
from trainwright.spec.toml import Document, parse
from trainwright.spec.tree import Scalar, Table, plain, walk

ROOT = Path(__file__).resolve().parents[2]

VALID = (ROOT / "tests" / "cases" / "toml" / "every_kind.toml").read_text(encoding="utf-8")

DOCUMENTS = [
    VALID,
    VALID.replace("\n", "\r\n"),
    "",
    "\n\n",
    "# only a comment",
    "a = 1",
    "a = 1\n\n\n[b]\n",
    "\ta\t=\t1\t\n  [ t . u ]  \n x=1",
    *(file.read_text(encoding="utf-8") for file in sorted((ROOT / "examples").glob("*.toml"))),
    *(file.read_text(encoding="utf-8") for file in sorted((ROOT / "spec").rglob("*.toml"))),
    (ROOT / "pyproject.toml").read_text(encoding="utf-8"),
]

# What tomllib refuses, with how often and where (line, column) it must be told.
INVALID = [
    ("a = ", [(1, 3)]),
    ("a", [(1, 1)]),
    ("= 1", [(1, 1)]),
    ("a = b", [(1, 5)]),
    ("a = 1 b = 2", [(1, 7)]),
    ("a = 2.0T\nb = 4Mi", [(1, 5), (2, 5)]),
    ("a = 01", [(1, 5)]),
    ("a = 1__0", [(1, 5)]),
    ("a = .5", [(1, 5)]),
    ("a = 5.", [(1, 5)]),
    ("a = True", [(1, 5)]),
    ('a = "x', [(1, 5)]),
    ('a = "x\\q"', [(1, 7)]),
    ('a = """x\nb = 1', [(1, 5)]),
    ("a = 'x\nb = 'y", [(1, 5), (2, 5)]),
    ("a = [1, 2\nb = 3\nc = ]", [(1, 5), (3, 3)]),
    ("a = { x = 1\nb = 3", [(1, 5)]),
    ("a = { x = 1,\n y = 2 }\nb = 3", [(1, 5)]),
    ("a = { x = 1, }", [(1, 12)]),
    ("[a\nb = 1\n[c]\nd = ", [(1, 2), (4, 3)]),
    ("[]", [(1, 2)]),
    ("[[a]\nx = 1", [(1, 4)]),
    ("a = 1\na = 2", [(2, 1)]),
    ("[a]\n[b]\n[a]", [(3, 2)]),
    ("a = 1\n[a]", [(2, 2)]),
    ("a = []\n[[a]]", [(2, 3)]),
    ("[[a]]\n[a]", [(2, 2)]),
    ("[a]\n[[a]]", [(2, 3)]),
    ("a = {}\n[a.b]", [(2, 2)]),
    ("a = { b = 1 }\na.c = 2", [(2, 1)]),
    ("a = { b = { c = 1 }, b.d = 2 }", [(1, 22)]),
    ("a = { b = 1, b = 2 }", [(1, 14)]),
    ("a.b = 1\na.b.c = 2", [(2, 3)]),
    ("[a.b]\nx = 1\n[a]\nb.y = 2", [(4, 1)]),
    ("[a]\nb.c = 1\n[a.b]\nx = 1", [(3, 4)]),
    ("x = 1979-13-01", [(1, 5)]),
    ("春 = 1", [(1, 1)]),
    ("a = '春' 春", [(1, 9)]),
    ("a = 1\x00", [(1, 5)]),
    ("# \x01", [(1, 3)]),
    ("a = 1\rb = 2", [(1, 6)]),
    ("\ufeffa = 1", [(1, 1)]),
]


def read(text: str) -> Document:
    return parse(text, "doc", lambda span: Origin("file", f"doc:{span.line}", span))


def same(ours: object, theirs: object) -> bool:
    """Equal, types included, nan equal to nan."""
    if type(ours) is not type(theirs):
        return False
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(same(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(ours, float) and isinstance(theirs, float) and math.isnan(ours):
        return math.isnan(theirs)
    return ours == theirs


def cut(text: str, span: Span) -> str:
    lines = text.replace("\r\n", "\n").split("\n")[span.line - 1 : span.end_line]
    lines[-1] = lines[-1][: span.end_column - 1]
    lines[0] = lines[0][span.column - 1 :]
    return "\n".join(lines)


@pytest.mark.parametrize("text", DOCUMENTS)
def test_gives_the_values_of_tomllib(text: str) -> None:
    document = read(text)
    assert document.diagnostics == []
    assert same(plain(document.table), tomllib.loads(text))


@pytest.mark.parametrize("text", DOCUMENTS)
def test_spans_hold_the_value_and_the_key(text: str) -> None:
    for path, node in walk(read(text).table):
        if isinstance(node, Scalar):
            assert same(tomllib.loads("v = " + cut(text, node.span))["v"], node.value)
        if node.key is not None:
            assert next(iter(tomllib.loads(cut(text, node.key) + " = 0"))) == next(
                name for name in reversed(path) if isinstance(name, str)
            )


@pytest.mark.parametrize(("text", "places"), INVALID)
def test_refuses_what_tomllib_refuses_at_the_right_place(text: str, places: list[tuple[int, int]]) -> None:
    with pytest.raises(tomllib.TOMLDecodeError):
        tomllib.loads(text)
    spans = [diagnostic.span for diagnostic in read(text).diagnostics]
    assert [(span.line, span.column) for span in spans if span] == places


def test_a_duplicate_points_at_both_places() -> None:
    (found,) = read("[a]\nx = 1\n\n[a]\ny = 2").diagnostics
    assert found.code == codes.DUPLICATE_KEY
    assert found.span == Span("doc", 4, 2, 4, 3)
    assert found.labels[0].span == Span("doc", 1, 2, 1, 3)


def test_columns_count_characters() -> None:
    node = read('a = { "春天" = "😀", b = 1 }').table.entries["a"]
    assert isinstance(node, Table)
    assert node.entries["b"].span == Span("doc", 1, 23, 1, 24)


def test_what_stands_beside_a_broken_statement_is_read() -> None:
    document = read('a = 1\nb = oops\nc = 3\n[t\nd = 4\n[u]\ne = "5')
    assert [diagnostic.code for diagnostic in document.diagnostics] == [codes.SYNTAX] * 3
    assert plain(document.table) == {"a": 1, "c": 3, "u": {}}


def test_mutilated_documents_are_refused_exactly_when_tomllib_refuses_them() -> None:
    random_state = random.Random(2026)
    pieces = ['"', "'", "[", "]", "{", "}", "=", ".", ",", "\n", "#", "\\", "-", "_", "1", "a", " ", '"""', "[[", "春"]
    bases = [VALID, (ROOT / "examples" / "tiny.toml").read_text(encoding="utf-8")]
    refused = 0
    for _ in range(300):
        text = random_state.choice(bases)
        for _ in range(random_state.randint(1, 3)):
            position = random_state.randrange(len(text))
            length = random_state.choice((0, 0, 1, 1, 5, 40))
            text = text[:position] + random_state.choice([*pieces, ""]) + text[position + length :]
        document = read(text)
        try:
            values = tomllib.loads(text)
        except tomllib.TOMLDecodeError:
            refused += 1
            assert document.diagnostics, text
        else:
            assert document.diagnostics == [], text
            assert same(plain(document.table), values), text
    assert refused > 50
