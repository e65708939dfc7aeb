"""Every diagnostic of the compiler: its page shows a mistake, which gives that diagnostic at the right place.

`golden_diagnostics.txt` holds what is told of each page's example. Renew it with
`python -m tests.compiler.test_pages`, and read what changed.
"""

import re
import tempfile
from pathlib import Path

import pytest
from tests.compiler.support import compile_fragment

from trainwright.spec.codes import CODES, page
from trainwright.spec.diagnostics import Diagnostic

COMPILER_CODES = [code for code in CODES if code.startswith(("TW2", "TW3", "TW5"))]
GOLDEN = Path(__file__).parent / "golden_diagnostics.txt"


def example(code: str) -> str:
    """The first TOML block of the code's page."""
    match = re.search(r"```toml\n(.*?)```", page(code) or "", re.DOTALL)
    assert match, f"the page of {code} shows no example"
    return match[1]


def told(code: str, folder: Path) -> list[str]:
    """One paragraph a diagnostic that the code's example gives."""
    loaded, compiled = compile_fragment(folder, example(code))
    return [paragraph(diagnostic, loaded.sources) for diagnostic in compiled.diagnostics]


def paragraph(diagnostic: Diagnostic, sources: dict[str, str]) -> str:
    lines = [f"{diagnostic.code} {diagnostic.severity}: {diagnostic.message}"]
    spans = [(diagnostic.span, "")] if diagnostic.span else []
    spans += [(label.span, f"  ({label.text})") for label in diagnostic.labels]
    for span, text in spans:
        line = sources[span.file].splitlines()[span.line - 1]
        end = span.end_column - 1 if span.end_line == span.line else len(line)
        lines.append(f"  {span.line}:{span.column} {line[span.column - 1 : end]}{text}")
    if diagnostic.help:
        lines.append(f"  help: {diagnostic.help}")
    return "\n".join(lines)


def golden() -> dict[str, str]:
    paragraphs = GOLDEN.read_text(encoding="utf-8").strip().split("\n\n")
    return {text[:5]: text for text in paragraphs}


@pytest.mark.parametrize("code", COMPILER_CODES)
def test_the_example_of_a_page_gives_its_diagnostic_alone(code: str, tmp_path: Path) -> None:
    assert told(code, tmp_path) == [golden()[code]]


def test_the_golden_file_holds_nothing_else() -> None:
    assert sorted(golden()) == sorted(COMPILER_CODES)


def test_a_good_spec_has_no_mistake(tmp_path: Path) -> None:
    _, compiled = compile_fragment(tmp_path)
    assert compiled.diagnostics == []
    assert compiled.plan is not None


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        paragraphs = [text for code in COMPILER_CODES for text in told(code, Path(scratch) / code)]
    GOLDEN.write_text("\n\n".join(paragraphs) + "\n", encoding="utf-8")
