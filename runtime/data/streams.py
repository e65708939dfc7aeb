"""Bytes of files and of archives' members, decompressed on the way, never whole in memory."""

import bz2
import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import IO, Any, cast

import zstandard

from trainwright.runtime.data.errors import DataError
from trainwright.spec.files import SourceFile, is_archive

_COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
_BROKEN = (EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError, tarfile.TarError, OSError)


def bare_suffix(name: str) -> str:
    """The suffix in lower case, that of a compression left out: `.jsonl` for `a.JSONL.gz`."""
    path = PurePosixPath(name.lower())
    return PurePosixPath(path.stem).suffix if path.suffix in _COMPRESSED else path.suffix


@contextmanager
def reported(file: SourceFile) -> Iterator[None]:
    """Whatever shows inside the block that the file is damaged or gone becomes a DataError."""
    try:
        yield
    except _BROKEN as error:
        raise DataError(f"`{file.location}` cannot be read to its end: {error}") from None


def members(file: SourceFile) -> Iterator[tuple[str, IO[bytes]]]:
    """Each (name, stream) inside the file: itself, or an archive's regular files under their own names.

    A stream must be read before the next one is asked for. Wrap the loop in `reported`.
    """
    with _open(file.location) as raw, _decompressed(raw, file.name) as stream:
        if not is_archive(file.name):
            yield file.name, stream
            return
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                if member.isfile():
                    content = cast(IO[bytes], archive.extractfile(member))
                    with _decompressed(content, member.name) as inner:
                        yield member.name.removeprefix("./"), inner


def _open(location: str) -> IO[bytes]:
    if "://" not in location:
        return open(location, "rb")
    import fsspec  # type: ignore[import-untyped]

    return cast(IO[bytes], fsspec.open(location, "rb").open())


def _decompressed(raw: IO[bytes], name: str) -> IO[bytes]:
    suffix = name.lower().rpartition(".")[2]
    open_as = _DECOMPRESSORS.get(suffix)
    return raw if open_as is None else cast(IO[bytes], open_as(raw))


class _Zstd(io.RawIOBase):
    """Frames one after the other. Unlike zstandard's own reader it says when the last one is cut short."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._begun = False
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            block = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame, self._begun = zstandard.ZstdDecompressor().decompressobj(), False
            block = block or self._raw.read(1 << 17)
            if not block:
                if self._begun:
                    raise EOFError("the last zstd frame is cut short")
                return 0
            self._begun = True
            self._ready = self._frame.decompress(block)
        count = min(len(buffer), len(self._ready))
        buffer[:count], self._ready = self._ready[:count], self._ready[count:]
        return count


_DECOMPRESSORS: dict[str, Callable[[IO[bytes]], Any]] = {
    **dict.fromkeys(("gz", "tgz"), lambda raw: gzip.GzipFile(fileobj=raw)),
    **dict.fromkeys(("bz2", "tbz2"), bz2.BZ2File),
    **dict.fromkeys(("xz", "txz"), lzma.LZMAFile),
    "zst": lambda raw: io.BufferedReader(_Zstd(raw), 1 << 20),
}
