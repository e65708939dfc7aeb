"""How often the text of a source is read: what the plan tells of it, and when it warns."""

import gzip
from pathlib import Path

import pytest
from tests.compiler.support import compile_fragment

PAIR = """
[data.sources.books]
path = "books"
[data.sources.poems]
path = "{path}"
[data.mixtures]
base = {{ books = 0.75, poems = 0.25 }}
"""


def passes(folder: Path, path: str, *sets: str) -> tuple[dict[str, float], list[str]]:
    """Of the only phase, which trains 64Ki tokens; and the codes of what was said."""
    _, compiled = compile_fragment(folder, PAIR.format(path=path), "data.held_out=0.2", *sets)
    assert compiled.plan is not None, compiled.diagnostics
    return compiled.plan.estimates[0].passes, [each.code for each in compiled.diagnostics]


def test_what_a_source_states_counts(tmp_path: Path) -> None:
    (tmp_path / "poems.txt").write_text("Rose.\n")
    found, codes = passes(tmp_path, "poems.txt", "data.sources.poems.tokens='40Ki'")
    assert found["poems"] == pytest.approx(16 / (0.8 * 40))
    assert codes == []
    found, codes = passes(tmp_path, "poems.txt", "data.sources.poems.tokens='1Ki'")
    assert found["poems"] == pytest.approx(20)
    assert codes == ["TW336"]


def test_local_files_tell_by_their_size_unless_they_are_compressed(tmp_path: Path) -> None:
    text = "word " * 32768
    (tmp_path / "poems.txt").write_text(text)
    found, _ = passes(tmp_path, "poems.txt")
    assert found["poems"] == pytest.approx(16 * 1024 / (0.8 * len(text) / 4))
    found, _ = passes(tmp_path, "poems.txt", "data.sources.poems.max_size='80KiB'")
    assert found["poems"] == pytest.approx(16 / (0.8 * 20))
    (tmp_path / "poems.txt.gz").write_bytes(gzip.compress(text.encode()))
    assert "poems" not in passes(tmp_path, "poems.txt.gz")[0]
    assert "poems" not in passes(tmp_path, "s3://bucket/poems.txt")[0]


def test_a_source_of_some_size_that_is_read_too_often_is_told(tmp_path: Path) -> None:
    (tmp_path / "poems.txt").write_text("word " * 16384)
    assert passes(tmp_path, "poems.txt")[1] == []
    assert passes(tmp_path, "poems.txt", "phases[0].tokens='2Mi'")[1] == ["TW336"]
