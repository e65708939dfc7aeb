"""The ingest stage: real text, whatever the number of workers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainwright.runtime.data import ingest
from trainwright.runtime.data.document import Document
from trainwright.runtime.data.errors import DataError
from trainwright.spec.plan import SourcePlan

EXAMPLES = Path(__file__).parents[3] / "examples"
Source = Callable[..., SourcePlan]
Run = Callable[..., Any]


def _rows(path: Path, *texts: str) -> None:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def test_real_sources_become_documents(source: Source, run_ingest: Run) -> None:
    done = run_ingest(
        source("poems", "corpus/poems-zh.jsonl.gz", language="zh"),
        source("code", "python://stdlib", kind="code", language="python", include=("json/*.py",)),
        root=EXAMPLES,
        held_out=0.05,
    )
    poems = done.sources["poems"]
    assert poems["train"]["documents"] + poems["held_out"]["documents"] == 408
    assert poems["held_out"]["documents"] == len(done.documents("poems", "held_out"))
    assert poems["train"]["bytes"] == sum(len(d.text.encode()) for d in done.documents("poems"))
    assert {d.path for d in done.documents("code")} < {f"json/{name}.py" for name in (
        "__init__", "decoder", "encoder", "scanner", "tool")}  # fmt: skip


def test_documents_look_as_documented(tmp_path: Path, source: Source, run_ingest: Run) -> None:
    _rows(tmp_path / "a.jsonl", "x\ny")
    done = run_ingest(source("s", "a.jsonl"), root=tmp_path)
    (document,) = done.documents("s")
    assert document == Document(id=document.id, source="s", language="en", kind="text", text="x\ny", path="a.jsonl")


def test_the_number_of_workers_changes_no_byte(
    tmp_path: Path, source: Source, run_ingest: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "_GROUP_BYTES", 10_000)
    for index in range(9):
        _rows(tmp_path / f"{index}.jsonl", *(f"{index} {row} text" for row in range(200)), "same")
    plans = [source("s", "*.jsonl", max_size_bytes=15_000), source("t", "*.jsonl")]
    one, two = (run_ingest(*plans, root=tmp_path, held_out=0.1, workers=workers) for workers in (1, 2))
    assert one.files() == two.files()
    assert one.sources == two.sources
    assert one.sources["s"]["duplicates"] == {"s": 6}
    assert one.sources["s"]["files"] == 8
    assert one.sources["t"]["duplicates"] == {"s": len(one.texts("s")) + 8}


def test_the_first_source_keeps_a_text_that_several_have(tmp_path: Path, source: Source, run_ingest: Run) -> None:
    _rows(tmp_path / "a.jsonl", "one", "two", "one")
    _rows(tmp_path / "b.jsonl", "two", "three", "one", "two")
    first, second = source("first", "a.jsonl"), source("second", "b.jsonl")
    done = run_ingest(first, second, root=tmp_path)
    assert done.texts("first") == ["one", "two"]
    assert done.texts("second") == ["three"]
    assert done.sources["first"]["duplicates"] == {"first": 1}
    assert done.sources["second"]["duplicates"] == {"first": 3}
    assert run_ingest(second, first, root=tmp_path).texts("second") == ["one", "three", "two"]


def test_another_source_moves_no_document_between_the_splits(tmp_path: Path, source: Source, run_ingest: Run) -> None:
    _rows(tmp_path / "a.jsonl", *(f"a {row}" for row in range(200)))
    _rows(tmp_path / "b.jsonl", *(f"b {row}" for row in range(200)))
    alone = run_ingest(source("a", "a.jsonl"), root=tmp_path, held_out=0.1)
    both = run_ingest(source("b", "b.jsonl"), source("a", "a.jsonl"), root=tmp_path, held_out=0.1)
    assert alone.documents("a", "held_out") == both.documents("a", "held_out")
    assert 5 < len(alone.documents("a", "held_out")) < 40


def test_the_document_that_reaches_the_size_is_the_last(tmp_path: Path, source: Source, run_ingest: Run) -> None:
    _rows(tmp_path / "a.jsonl", "12345", "67890", "abcde")
    sizes = {limit: len(run_ingest(source("s", "a.jsonl", max_size_bytes=limit), root=tmp_path).texts("s"))
             for limit in (1, 5, 6, 10, 11, 99)}  # fmt: skip
    assert sizes == {1: 1, 5: 1, 6: 2, 10: 2, 11: 3, 99: 3}


def test_bad_rows_are_counted_and_the_first_ones_shown(tmp_path: Path, source: Source, run_ingest: Run) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "x"}\n' + b"{\n" * 7 + b'{"text": ""}\n')
    counts = run_ingest(source("s", "a.jsonl"), root=tmp_path).sources["s"]
    assert counts["bad_rows"] == {"empty": 1, "not a JSON object": 7}
    assert counts["first_bad_rows"] == [f"a.jsonl:{line}: not a JSON object" for line in range(2, 7)]


def test_a_source_without_documents_says_why(tmp_path: Path, source: Source, run_ingest: Run) -> None:
    (tmp_path / "a.jsonl").write_text('{"content": "x"}\n')
    with pytest.raises(DataError, match=r"source `s` has no documents: .*a\.jsonl:1: no key `text`"):
        run_ingest(source("s", "a.jsonl"), root=tmp_path)


def test_a_damaged_file_is_told_by_workers_too(tmp_path: Path, source: Source, run_ingest: Run) -> None:
    for name in "ab":
        (tmp_path / f"{name}.jsonl.gz").write_bytes(b"not gzip")
    plans = [source(name, f"{name}.jsonl.gz") for name in "ab"]
    with pytest.raises(DataError, match="cannot be read to its end"):
        run_ingest(*plans, root=tmp_path, workers=2)
