"""The yardstick beside bits per byte is what the two programs would write."""

import gzip
import lzma
import random

from trainwright.runtime.evaluate.compress import CompressedSizes, Compressors


def test_pieces_are_compressed_as_one_stream() -> None:
    draw = random.Random(0)
    pieces = ["".join(draw.choices("etaoin shrdlu\n", k=500)).encode() for _ in range(40)]
    compressors = Compressors()
    for piece in pieces:
        compressors.feed(piece)
    whole = b"".join(pieces)
    assert compressors.finish() == CompressedSizes(
        text_bytes=len(whole),
        gzip_bytes=len(gzip.compress(whole, 9)),
        xz_bytes=len(lzma.compress(whole, preset=9)),
    )
