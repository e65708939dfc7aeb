"""The one format of documents: JSON lines, one document each, in zstd frames that may simply be appended."""

import io
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
import zstandard

LEVEL = 3  # 260 MB/s and a ratio of 3.75 on text; higher levels win little


class Document(msgspec.Struct, frozen=True, omit_defaults=True):
    """One text with where it is from. `id` is a hash of source, path and record, so it says nothing of the order."""

    id: str
    source: str
    language: str
    kind: str
    text: str
    path: str | None = None
    title: str | None = None
    repository: str | None = None  # said by a JSON line; `path` is then the path in it


_decoder = msgspec.json.Decoder(Document)


def documents_path(folder: Path, source: str, split: str) -> Path:
    """Where the ingest stage that filled `folder` keeps a source's documents; `split` is `train` or `held_out`."""
    return folder / "documents" / f"{source}.{split}.jsonl.zst"


def write_lines(path: Path, lines: Iterable[bytes]) -> None:
    """The file holds the lines, each given without its newline, as one frame."""
    with path.open("wb") as raw, zstandard.ZstdCompressor(LEVEL).stream_writer(raw) as compressed:
        for line in lines:
            compressed.write(line + b"\n")


def read_lines(path: Path) -> Iterator[bytes]:
    """The lines of all frames of the file, each with its newline."""
    with path.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True) as stream:
        yield from io.BufferedReader(stream, 1 << 20)


def encode(document: Document) -> bytes:
    return msgspec.json.encode(document)


def decode(line: bytes) -> Document:
    return _decoder.decode(line)


def read_documents(path: Path) -> Iterator[Document]:
    """The documents of the file, in order."""
    return map(decode, read_lines(path))
