"""Documents out of raw files, and what could not become one.

Text stays as it is but for two things that are marks of a file and not of its text: a byte order mark at the start is
dropped and CR LF becomes LF, so that one text is one text whichever system saved it. No Unicode normalisation: it
would change code, and a byte-fallback vocabulary can spell any text exactly.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import msgspec

from trainwright.runtime.data.document import Document
from trainwright.runtime.data.streams import bare_suffix, members, reported
from trainwright.spec.files import SourceFile, is_archive
from trainwright.spec.globs import selected
from trainwright.spec.plan import SourcePlan

_JSON_LINES = frozenset({".jsonl", ".ndjson", ".jsonlines"})
_DIGEST_BYTES = 16
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_string = msgspec.json.Decoder(str)


@dataclass(frozen=True)
class Bad:
    """A row or file that is no document: why, and where (`file:line`)."""

    reason: str
    where: str


def documents(source: SourcePlan, file: SourceFile) -> Iterator[Document | Bad]:
    """Every document of the file and every row that is none, in the file's order.

    Raises DataError if the file is missing, damaged or cut short.
    """
    choose = is_archive(file.name)
    with reported(file):
        for name, stream in members(file):
            if choose and not selected(name, source.include, source.exclude):
                continue
            path = printable(f"{file.name}/{name}" if choose else name)
            if is_json_lines(source, name):
                yield from _json_lines(source, path, stream)
            else:
                yield _whole_file(source, path, stream.read())


def is_json_lines(source: SourcePlan, name: str) -> bool:
    """Whether a file of the source holds a document per line."""
    return source.format == "jsonl" or (source.format == "auto" and bare_suffix(name) in _JSON_LINES)


def digest(text: bytes) -> bytes:
    """16 bytes that stand for the text: two different texts with the same ones have never been seen."""
    return hashlib.blake2b(text, digest_size=_DIGEST_BYTES).digest()


def _json_lines(source: SourcePlan, path: str, stream: IO[bytes]) -> Iterator[Document | Bad]:
    for number, line in enumerate(stream, start=1):
        where = f"{path}:{number}"
        try:
            row = _object.decode(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
        except UnicodeDecodeError:
            yield Bad("not UTF-8", where)
            continue
        except msgspec.DecodeError:
            yield Bad("empty" if not line.strip() else "not a JSON object", where)
            continue
        needed = (source.text_key, "repo", "path") if source.repository_bytes is not None else (source.text_key,)
        missing = [key for key in needed if key not in row]
        if missing:
            yield Bad(f"no key `{missing[0]}`", where)
            continue
        try:
            text, *place = [_string.decode(row[key]) for key in needed]
        except UnicodeDecodeError:
            yield Bad("not UTF-8", where)
        except msgspec.DecodeError:
            yield Bad(f"{' or '.join(f'`{key}`' for key in needed)} is not a string", where)
        else:
            document = _document(source, path, number, text, _title(row))
            if place and isinstance(document, Document):
                document = msgspec.structs.replace(document, repository=place[0], path=place[1])
            yield document


def _title(row: dict[str, msgspec.Raw]) -> str | None:
    try:
        return _string.decode(row["title"]) if "title" in row else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None  # a title only labels a document; it is not worth losing one


def _whole_file(source: SourcePlan, path: str, content: bytes) -> Document | Bad:
    try:
        return _document(source, path, 0, content.decode(), title=None)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return Bad("not UTF-8", f"{path}:{line}")


def _document(source: SourcePlan, path: str, record: int, text: str, title: str | None) -> Document | Bad:
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    if not text.strip():
        return Bad("empty", f"{path}:{record or 1}")
    return Document(
        id=digest(f"{source.name}\0{path}\0{record}".encode()).hex(),
        source=source.name,
        language=source.language,
        kind=source.kind,
        text=text,
        path=path,
        title=title,
    )


def printable(path: str) -> str:
    """The path as text that UTF-8 can hold: names of files need not be."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
