"""Documents out of files of every kind, and the rows that are none."""

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from trainwright.runtime.data.document import Document
from trainwright.runtime.data.errors import DataError
from trainwright.runtime.data.files import source_files
from trainwright.runtime.data.records import Bad, documents
from trainwright.spec.plan import SourcePlan

Source = Callable[..., SourcePlan]

COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: zstandard.compress(data[:7]) + zstandard.compress(data[7:]),
}


def _read(folder: Path, plan: SourcePlan) -> list[Document | Bad]:
    return [found for file in source_files(plan, folder) for found in documents(plan, file)]


def _texts(folder: Path, plan: SourcePlan) -> list[str]:
    return [found.text for found in _read(folder, plan) if isinstance(found, Document)]


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_every_compression_gives_the_same_documents(suffix: str, tmp_path: Path, source: Source) -> None:
    rows = b'{"text": "one", "title": "T"}\n{"text": "\xe4\xba\x8c"}\n'
    (tmp_path / f"rows.jsonl{suffix}").write_bytes(COMPRESSIONS[suffix](rows))
    found = _read(tmp_path, source("s", f"rows.jsonl{suffix}", language="zh", kind="chat"))
    assert [(d.text, d.title, d.language, d.kind, d.source) for d in found if isinstance(d, Document)] == [
        ("one", "T", "zh", "chat", "s"),
        ("二", None, "zh", "chat", "s"),
    ]


@pytest.mark.parametrize("suffix", [suffix for suffix in COMPRESSIONS if suffix])
def test_a_file_that_is_cut_short_is_an_error(suffix: str, tmp_path: Path, source: Source) -> None:
    whole = COMPRESSIONS[suffix](b'{"text": "some text"}\n' * 99)
    (tmp_path / f"rows.jsonl{suffix}").write_bytes(whole[:-6])
    with pytest.raises(DataError, match="cannot be read to its end"):
        _read(tmp_path, source("s", f"rows.jsonl{suffix}"))


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_an_archive_gives_the_members_that_are_selected(suffix: str, tmp_path: Path, source: Source) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in (
            ("./x/a.py", b"a = 1\n"),
            ("x/b.md", b"# b"),
            ("x/c.jsonl.gz", gzip.compress(b'{"text":"c"}')),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    (tmp_path / f"all.tar{suffix}").write_bytes(COMPRESSIONS[suffix](buffer.getvalue()))
    assert _texts(tmp_path, source("s", f"all.tar{suffix}", exclude=("**/*.md",))) == ["a = 1\n", "c"]


def test_only_marks_of_the_file_are_normalised(tmp_path: Path, source: Source) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffone\r\ntwo\rthree\u0301 \n".encode())
    (tmp_path / "b.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "one\\r\\ntwo"}\r\n')
    assert _texts(tmp_path, source("s", ".")) == ["one\ntwo\rthree\u0301 \n", "one\ntwo"]


def test_the_format_overrules_the_suffix(tmp_path: Path, source: Source) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x"}')
    (tmp_path / "b.txt").write_text('{"body": "y"}')
    assert _texts(tmp_path, source("s", "a.jsonl", format="files")) == ['{"text": "x"}']
    assert _texts(tmp_path, source("s", "b.txt", format="jsonl", text_key="body")) == ["y"]


def test_rows_that_are_no_documents_are_named_with_their_places(tmp_path: Path, source: Source) -> None:
    rows = [b'{"text": "good"}', b"{broken", b'{"body": 1}', b'{"text": 5}', b'{"text": " "}', b"", b'{"text": "\xff"}']
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(rows))
    found = _read(tmp_path, source("s", "rows.jsonl"))
    assert found[1:] == [
        Bad("not a JSON object", "rows.jsonl:2"),
        Bad("no key `text`", "rows.jsonl:3"),
        Bad("`text` is not a string", "rows.jsonl:4"),
        Bad("empty", "rows.jsonl:5"),
        Bad("empty", "rows.jsonl:6"),
        Bad("not UTF-8", "rows.jsonl:7"),
    ]


def test_a_file_that_is_not_utf8_says_on_which_line(tmp_path: Path, source: Source) -> None:
    (tmp_path / "a.py").write_bytes(b"x = 1\n# caf\xe9\n")
    assert _read(tmp_path, source("s", "a.py")) == [Bad("not UTF-8", "a.py:2")]


def test_ids_say_which_record_of_which_file_of_which_source(tmp_path: Path, source: Source) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n{"text": "x"}\n')
    first = [found.id for found in _read(tmp_path, source("s", "a.jsonl")) if isinstance(found, Document)]
    other = [found.id for found in _read(tmp_path, source("t", "a.jsonl")) if isinstance(found, Document)]
    assert first == ["ee08978b7b60440898e50154fd3ebcad", first[1]]
    assert len({*first, *other}) == 4
