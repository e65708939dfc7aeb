"""What `gzip -9` and `xz -9` make of a text: the yardstick beside a model's bits per byte.

Both programs' formats are written by the libraries behind them (zlib, liblzma), so that a figure does not depend on
what is installed. The text is one stream, documents one after the other, as a model never sees it: these compressors
may look back over documents, a model's context may not.
"""

import lzma
import zlib
from dataclasses import dataclass

_GZIP_WINDOW = 16 + zlib.MAX_WBITS  # 16: with gzip's header and checksum


@dataclass(frozen=True)
class CompressedSizes:
    text_bytes: int
    gzip_bytes: int
    xz_bytes: int


class Compressors:
    """Takes a text in pieces and counts; keeps none of it beyond the compressors' own windows."""

    def __init__(self) -> None:
        self._gzip = zlib.compressobj(9, zlib.DEFLATED, _GZIP_WINDOW)
        self._xz = lzma.LZMACompressor(preset=9)
        self._text_bytes = self._gzip_bytes = self._xz_bytes = 0

    def feed(self, text: bytes) -> None:
        self._text_bytes += len(text)
        self._gzip_bytes += len(self._gzip.compress(text))
        self._xz_bytes += len(self._xz.compress(text))

    def finish(self) -> CompressedSizes:
        """The sizes of the whole; nothing can be fed afterwards."""
        return CompressedSizes(
            text_bytes=self._text_bytes,
            gzip_bytes=self._gzip_bytes + len(self._gzip.flush()),
            xz_bytes=self._xz_bytes + len(self._xz.flush()),
        )
