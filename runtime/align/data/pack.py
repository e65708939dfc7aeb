"""Whole items of unequal length side by side in rows of one length, and what then becomes of a batch of such rows.

B rows of a batch, S positions of a row, L tokens of an item, N items.
"""

import bisect
import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trainwright.runtime.data.split import mix

_WINDOW = 8192  # items that are packed together: more fill rows hardly better, and mix the data less
Item = tuple[NDArray[np.integer], NDArray[np.bool_]]  # tokens_L, and which of them are to be predicted


@dataclass(frozen=True, eq=False)  # arrays say nothing of being equal
class PackedRows(Sequence[list[int]]):
    """The items' numbers by row, as arrays: lists of millions of rows would take gigabytes in every process.

    A row R is `items_N[begin_R:end_R]`.
    """

    items_N: NDArray[np.int64]
    begin_R: NDArray[np.int64]
    end_R: NDArray[np.int64]

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> "PackedRows":
        counts_R = np.array(list(map(len, rows)), dtype=np.int64)
        end_R = np.cumsum(counts_R)
        return cls(np.fromiter(itertools.chain.from_iterable(rows), dtype=np.int64), end_R - counts_R, end_R)

    @classmethod
    def chain(cls, parts: Sequence["PackedRows"]) -> "PackedRows":
        """The rows of one part after those of the other."""
        before = np.cumsum([0, *(len(part.items_N) for part in parts)])
        return cls(
            np.concatenate([part.items_N for part in parts]),
            np.concatenate([part.begin_R + offset for part, offset in zip(parts, before, strict=False)]),
            np.concatenate([part.end_R + offset for part, offset in zip(parts, before, strict=False)]),
        )

    def __len__(self) -> int:
        return len(self.end_R)

    @overload
    def __getitem__(self, row: int) -> list[int]: ...
    @overload
    def __getitem__(self, row: slice) -> list[list[int]]: ...
    def __getitem__(self, row: int | slice) -> list[int] | list[list[int]]:
        if isinstance(row, slice):
            return [self[number] for number in range(*row.indices(len(self)))]
        own: list[int] = self.items_N[self.begin_R[row] : self.end_R[row]].tolist()
        return own

    def shuffled(self, salt: str) -> "PackedRows":
        """The same rows in another order."""
        order_R = _shuffled(len(self), salt)
        return PackedRows(self.items_N, self.begin_R[order_R], self.end_R[order_R])


def pack(lengths_N: ArrayLike, row_length: int, seed: int) -> PackedRows:
    """The items' numbers by row; every item is in exactly one row, and no row is longer than `row_length`.

    Items are shuffled by the seed; windows of them are packed by best fit, the longest first (Johnson 1973); then the
    rows are shuffled. The same on every machine. Raises ValueError if an item is longer than a row.
    """
    lengths = np.asarray(lengths_N, dtype=np.int64)
    if len(lengths) and int(lengths.max()) > row_length:
        raise ValueError(f"an item of {int(lengths.max())} tokens in rows of {row_length}")
    order = _shuffled(len(lengths), f"items {seed}")
    windows = [PackedRows.of([])]
    for begin in range(0, len(order), _WINDOW):
        window = order[begin : begin + _WINDOW]
        window = window[np.argsort(-lengths[window], kind="stable")]
        windows.append(PackedRows.of(_best_fit(window.tolist(), lengths[window].tolist(), row_length)))
    return PackedRows.chain(windows).shuffled(f"rows {seed}")


def _best_fit(items: list[int], lengths: list[int], row_length: int) -> list[list[int]]:
    rows: list[list[int]] = []
    open_rows: list[tuple[int, int]] = []  # (free positions, row), ascending
    for item, length in zip(items, lengths, strict=True):
        place = bisect.bisect_left(open_rows, (length, -1))
        if place == len(open_rows):
            free, row = row_length, len(rows)
            rows.append([])
        else:
            free, row = open_rows.pop(place)
        rows[row].append(item)
        bisect.insort(open_rows, (free - length, row))
    return rows


def _shuffled(count: int, salt: str) -> NDArray[np.int64]:
    key = np.frombuffer(hashlib.blake2b(salt.encode(), digest_size=8).digest(), dtype="<u8")
    return np.argsort(mix(np.arange(count, dtype=np.uint64) ^ key), kind="stable")


@dataclass
class PackedBatch:
    """Rows of S + 1 tokens: inputs are the first S, labels the last S, as in `data.batches.Batch`.

    `counted_BS1[b, s]`: whether token s is to be predicted from the one before it. `starts[b]`: the places where an
    item begins, and where the padding does, which is a document of its own and never counted.
    """

    tokens_BS1: NDArray[np.int64]
    counted_BS1: NDArray[np.bool_]
    starts: Sequence[NDArray[np.int64]]


def packed_batch(rows: Sequence[Sequence[Item]], row_length: int, padding: int) -> PackedBatch:
    """The rows' items back to back, filled up with the token `padding`.

    An item's first token is never counted: nothing of its own document stands before it.
    """
    tokens_BS1 = np.full((len(rows), row_length + 1), padding, dtype=np.int64)
    counted_BS1 = np.zeros((len(rows), row_length + 1), dtype=np.bool_)
    starts = []
    for b, row in enumerate(rows):
        at = 0
        begins = []
        for tokens_L, counted_L in row:
            end = at + len(tokens_L)
            tokens_BS1[b, at:end] = tokens_L
            counted_BS1[b, at + 1 : end] = counted_L[1:]
            begins.append(at)
            at = end
        starts.append(np.array([*begins, at], dtype=np.int64))
    return PackedBatch(tokens_BS1, counted_BS1, starts)
