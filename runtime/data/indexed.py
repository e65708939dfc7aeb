"""Megatron-core's IndexedDataset, read and written with numpy alone.

`.bin` is all tokens back to back. `.idx`, little endian: `MMIDIDX` and two zero bytes, u64 version 1, u8 code of the
token type, u64 sequences, u64 documents + 1, then i32 lengths in tokens, i64 offsets in bytes, i64 document boundaries
counted in sequences. Here every document is one sequence. Source: megatron/core/datasets/indexed_dataset.py, 0.16.1.
"""

import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainwright.runtime.data.errors import DataError

DType = np.dtype[np.uint16] | np.dtype[np.int32]

_MAGIC = b"MMIDIDX\x00\x00"
_HEADER = struct.Struct("<9sQBQQ")
_CODES: dict[DType, int] = {np.dtype(np.int32): 4, np.dtype(np.uint16): 8}
_UINT16_BELOW = 65_500  # Megatron's own limit, a little under 2^16


def token_dtype(vocab_size: int) -> DType:
    """The type Megatron keeps tokens of such a vocabulary in."""
    return np.dtype(np.uint16) if vocab_size < _UINT16_BELOW else np.dtype(np.int32)


def tokens_path(folder: Path, source: str, split: str) -> Path:
    """The path of a source's tokens without `.bin` and `.idx`, which is what Megatron calls a prefix."""
    return folder / f"{source}.{split}"


def write_index(prefix: Path, lengths_D: NDArray[np.int64], dtype: DType) -> None:
    """`prefix.idx` describes a `prefix.bin` of documents of these lengths in tokens."""
    count = len(lengths_D)
    offsets_D = np.zeros(count, dtype="<i8")
    np.cumsum(lengths_D[:-1] * dtype.itemsize, out=offsets_D[1:])
    with open(f"{prefix}.idx", "wb") as file:
        file.write(_HEADER.pack(_MAGIC, 1, _CODES[dtype], count, count + 1))
        file.write(lengths_D.astype("<i4").tobytes())
        file.write(offsets_D.tobytes())
        file.write(np.arange(count + 1, dtype="<i8").tobytes())


def write_documents(prefix: Path, documents: Iterable[NDArray[np.integer]], dtype: DType) -> None:
    """`prefix.bin` and `prefix.idx` hold the documents' tokens, in order."""
    lengths = []
    with open(f"{prefix}.bin", "wb") as file:
        for tokens in documents:
            file.write(tokens.astype(dtype, copy=False).tobytes())
            lengths.append(len(tokens))
    write_index(prefix, np.array(lengths, dtype=np.int64), dtype)


class TokenizedSource:
    """The tokens of one source and split, mapped into memory: opening costs nothing, reading what is read."""

    def __init__(self, prefix: Path) -> None:
        """Raises DataError if there is no index of such documents at `prefix`."""
        try:
            index = Path(f"{prefix}.idx").read_bytes()
            size_bytes = Path(f"{prefix}.bin").stat().st_size
        except FileNotFoundError as error:
            raise DataError(f"there is no tokenized source `{prefix.name}`: `{error.filename}` is missing") from None
        magic, version, code, count, boundaries = _HEADER.unpack_from(index)
        dtype = {code: dtype for dtype, code in _CODES.items()}.get(code)
        if magic != _MAGIC or version != 1 or dtype is None or boundaries != count + 1:
            raise DataError(f"`{prefix}.idx` is not an index of documents")
        self.lengths_D: NDArray[np.int64] = np.frombuffer(index, "<i4", count, _HEADER.size).astype(np.int64)
        self.begins_D: NDArray[np.int64] = np.cumsum(self.lengths_D) - self.lengths_D  # in tokens
        self.token_count = int(self.lengths_D.sum())
        if size_bytes != self.token_count * dtype.itemsize:
            raise DataError(f"`{prefix}.bin` does not have the size that its index says")
        # An empty file cannot be mapped.
        self._tokens: NDArray[np.integer] = (
            np.memmap(f"{prefix}.bin", dtype, mode="r") if size_bytes else np.empty(0, dtype)
        )

    def __len__(self) -> int:
        return len(self.lengths_D)

    def tokens(self, document: int, start: int = 0, stop: int | None = None) -> NDArray[np.integer]:
        """The document's tokens from `start` to `stop` (its end if None), as a view."""
        begin, length = int(self.begins_D[document]), int(self.lengths_D[document])
        return self._tokens[begin + start : begin + (length if stop is None else min(stop, length))]
