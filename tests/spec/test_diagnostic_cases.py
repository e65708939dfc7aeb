"""Golden diagnostics: every folder of tests/cases/diagnostics holds a broken spec and what is said of it.

`python tests/spec/test_diagnostic_cases.py` rewrites every expected.txt; read the difference before you commit it.
A case may have an `arguments.toml` with `sets` (of the command line) and `environ`.
"""

import contextlib
import re
import tomllib
from pathlib import Path

import pytest

from trainwright.spec.codes import CODES, page
from trainwright.spec.diagnostics import Diagnostic
from trainwright.spec.load import load
from trainwright.spec.render import render_text

FOLDER = Path(__file__).resolve().parents[1] / "cases" / "diagnostics"
CASES = sorted(folder.name for folder in FOLDER.iterdir())
SPEC_CODES = [code for code in CODES if code.startswith("TW1")]
REWRITE = "python tests/spec/test_diagnostic_cases.py"


def check(case: str) -> tuple[list[Diagnostic], str]:
    """The diagnostics of a case, and how they look without colour."""
    folder = FOLDER / case
    arguments = folder / "arguments.toml"
    given = tomllib.loads(arguments.read_text(encoding="utf-8")) if arguments.exists() else {}
    with contextlib.chdir(folder):
        loaded = load(Path("spec.toml"), given.get("sets", ()), given.get("environ", {}))
        return loaded.diagnostics, render_text(loaded.diagnostics, loaded.sources) + "\n"


@pytest.mark.parametrize("case", CASES)
def test_says_what_it_said(case: str) -> None:
    expected = (FOLDER / case / "expected.txt").read_text(encoding="utf-8")
    assert check(case)[1] == expected, f"if the new text is right, run `{REWRITE}`"


@pytest.mark.parametrize("case", CASES)
def test_every_place_is_where_the_text_says(case: str) -> None:
    diagnostics, text = check(case)
    for diagnostic in diagnostics:
        if diagnostic.span is not None:
            span = diagnostic.span
            assert f"--> {span.file}:{span.line}:{span.column}" in text


def test_every_code_has_a_case() -> None:
    shown = set()
    for case in CASES:
        shown.update(re.findall(r"\[(TW\d+)\]", (FOLDER / case / "expected.txt").read_text(encoding="utf-8")))
    assert sorted(set(SPEC_CODES) - shown) == []


@pytest.mark.parametrize("code", SPEC_CODES)
def test_every_code_has_a_page(code: str) -> None:
    text = page(code)
    assert text is not None
    assert text.startswith(f"# {code}: {CODES[code].title}\n")


@pytest.mark.parametrize("code", SPEC_CODES)
def test_the_example_of_a_page_shows_its_code(code: str, tmp_path: Path) -> None:
    example = re.search(r"```toml\n(.*?)```", page(code) or "", re.DOTALL)
    if code in ("TW103", "TW107"):  # not to be shown in a text of TOML
        assert example is None
        return
    assert example is not None
    path = tmp_path / "spec.toml"
    path.write_text(example[1], encoding="utf-8")
    (tmp_path / "base.toml").write_text('extends = ["spec.toml"]\n', encoding="utf-8")
    assert code in [diagnostic.code for diagnostic in load(path).diagnostics]


def test_nothing_is_reported_twice() -> None:
    for case in CASES:
        diagnostics, _ = check(case)
        assert len(set(diagnostics)) == len(diagnostics), case


def rewrite() -> None:
    for case in CASES:
        (FOLDER / case / "expected.txt").write_text(check(case)[1], encoding="utf-8")


if __name__ == "__main__":
    rewrite()
