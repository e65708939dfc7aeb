"""Reads the files of a run's folder: a missing one is nothing, a broken one is a sentence."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec

_Read = TypeVar("_Read")
_TAIL_BYTES = 256 * 1024


@dataclass
class Files:
    """One run's folder. `broken` collects a sentence for every file that is there and does not say what it should."""

    folder: Path
    broken: list[str] = field(default_factory=list)

    def name(self, path: Path) -> str:
        """The path as it is told: relative to the run's folder."""
        return path.relative_to(self.folder).as_posix() if path.is_relative_to(self.folder) else str(path)

    def read(self, path: Path, decode: Callable[[bytes], _Read]) -> _Read | None:
        """What `decode` makes of the file's bytes; None if it is missing or broken."""
        try:
            data = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return self.make(path, lambda: decode(data))

    def make(self, path: Path, interpret: Callable[[], _Read]) -> _Read | None:
        """What `interpret` makes of what was read from the file; None, and a sentence, if that is not possible."""
        try:
            return interpret()
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError, TypeError, KeyError, AttributeError) as error:
            self.broken.append(f"`{self.name(path)}` cannot be read: {_sentence(error)}")
            return None

    def table(self, path: Path) -> dict[str, Any]:
        """The JSON object in the file; empty if it is missing or broken."""
        return self.read(path, lambda data: msgspec.json.decode(data, type=dict[str, Any])) or {}

    def rows(self, path: Path) -> list[dict[str, Any]]:
        """The JSON object of every line. A last line without its newline was cut off by a kill and does not count."""

        def decode(data: bytes) -> list[dict[str, Any]]:
            rows = []
            for number, line in enumerate(data[: data.rfind(b"\n") + 1].splitlines(), start=1):
                try:
                    row = json.loads(line)  # unlike msgspec, it takes the NaN of a loss that blew up
                except ValueError as error:
                    raise ValueError(f"line {number}: {error}") from None
                if not isinstance(row, dict):
                    raise ValueError(f"line {number} is no object")
                rows.append(row)
            return rows

        return self.read(path, decode) or []

    def first_rows(self, path: Path, kind: type[_Read], count: int) -> list[_Read]:
        """The JSON objects of the first lines that are whole."""

        def decode(data: bytes) -> list[_Read]:
            decoder = msgspec.json.Decoder(kind)
            return [decoder.decode(line) for line in data[: data.rfind(b"\n") + 1].splitlines()[:count]]

        return self._part(path, 0, _TAIL_BYTES, decode)

    def last_rows(self, path: Path, kind: type[_Read], size_bytes: int | None) -> list[_Read]:
        """The JSON objects of the lines that are whole in the file's last bytes; None: in all of it."""

        def decode(data: bytes) -> list[_Read]:
            first = data.find(b"\n") + 1 if start else 0
            return msgspec.json.Decoder(kind).decode_lines(data[first : data.rfind(b"\n") + 1])

        size = path.stat().st_size if path.is_file() else 0
        start = 0 if size_bytes is None else max(0, size - size_bytes - 1)  # one more: the newline before, perhaps
        return self._part(path, start, size - start, decode)

    def _part(self, path: Path, start: int, size: int, decode: Callable[[bytes], list[_Read]]) -> list[_Read]:
        try:
            with open(path, "rb") as file:
                file.seek(start)
                data = file.read(size)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return self.make(path, lambda: decode(data)) or []

    def tail(self, path: Path, count: int, *, without: Sequence[str]) -> tuple[str, ...]:
        """The last lines of a log, however long it is, once the texts in `without` are taken out."""
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
        for known in without:
            text = text.replace(known, "")
        return tuple(text.splitlines()[-count:])


def _sentence(error: Exception) -> str:
    return f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
