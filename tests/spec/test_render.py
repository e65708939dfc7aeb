"""Diagnostics on a terminal and on GitHub."""

import json

from trainwright.spec.diagnostics import Diagnostic, Label, Span
from trainwright.spec.render import render_github, render_json, render_text

SOURCES = {"s.toml": '# first\nname = "春 🌸"  # x\n\tkey = "e\u0301"\nlast = [1,\n 2]\n', "base.toml": "a = 1\n"}


def shown(*diagnostics: Diagnostic, color: bool = False) -> list[str]:
    return render_text(diagnostics, SOURCES, color=color).split("\n")


def test_wide_characters_are_underlined_in_full() -> None:
    lines = shown(Diagnostic("TW117", "m", Span("s.toml", 2, 8, 2, 13)))
    assert lines[3:5] == ['2 | name = "春 🌸"  # x', "  |        ^^^^^^^"]


def test_tabs_and_combining_characters_keep_the_underline_in_place() -> None:
    lines = shown(Diagnostic("TW117", "m", Span("s.toml", 3, 8, 3, 12)))
    assert lines[3:5] == ['3 |     key = "e\u0301"', "  |           ^^^"]


def test_a_span_over_lines_is_underlined_to_the_end_of_its_first() -> None:
    assert shown(Diagnostic("TW118", "m", Span("s.toml", 4, 8, 5, 4)))[3:5] == ["4 | last = [1,", "  |        ^^^"]


def test_labels_of_this_and_of_other_files() -> None:
    labels = (Label(Span("s.toml", 4, 1, 4, 5), "here"), Label(Span("base.toml", 1, 1, 1, 2), "there"))
    assert shown(Diagnostic("TW102", "twice", Span("s.toml", 1, 1, 1, 8), "drop one", labels)) == [
        "error[TW102]: twice",
        " --> s.toml:1:1",
        "  |",
        "1 | # first",
        "  | ^^^^^^^",
        "...",
        "4 | last = [1,",
        "  | ---- here",
        " ::: base.toml:1:1",
        "  |",
        "1 | a = 1",
        "  | - there",
        "  = help: drop one",
        "",
        "1 error",
    ]


def test_without_a_place_or_a_text_the_sentence_remains() -> None:
    assert shown(Diagnostic("TW104", "gone"), Diagnostic("TW331", "tight", severity="warning")) == [
        "error[TW104]: gone",
        "",
        "warning[TW331]: tight",
        "",
        "1 error, 1 warning",
    ]
    assert shown(Diagnostic("TW111", "m", Span("elsewhere", 3, 1, 3, 2)))[1] == " --> elsewhere:3:1"


def test_color_is_asked_for() -> None:
    diagnostic = Diagnostic("TW101", "m", Span("s.toml", 1, 1, 1, 2))
    assert "\x1b[" in "".join(shown(diagnostic, color=True))
    assert "\x1b[" not in "".join(shown(diagnostic))


def test_control_characters_do_not_reach_the_terminal() -> None:
    text = render_text([Diagnostic("TW101", "bad \x1b[2J", Span("f", 1, 1, 1, 2))], {"f": "\x1b[31m"})
    assert "\x1b" not in text


def test_github_escapes_what_it_reads_as_syntax() -> None:
    found = Diagnostic("TW110", "50% of\nit", Span("a,b:c.toml", 2, 3, 2, 9), "cure")
    assert render_github([found]) == (
        "::error file=a%2Cb%3Ac.toml,line=2,endLine=2,col=3,endColumn=9,title=TW110 unknown-key"
        "::50%25 of%0Ait%0Ahelp: cure\n"
    )
    assert render_github([Diagnostic("TW110", "m", Span("-s", 1, 1, 1, 2))]).startswith("::error title=")


def test_json_says_all_there_is() -> None:
    (found,) = json.loads(render_json([Diagnostic("TW101", "m", Span("f", 1, 2, 3, 4))]))
    assert found == {
        "code": "TW101",
        "message": "m",
        "span": {"file": "f", "line": 1, "column": 2, "end_line": 3, "end_column": 4},
        "help": None,
        "labels": [],
        "severity": "error",
        "members": [],
    }
