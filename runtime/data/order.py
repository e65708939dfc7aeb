"""A source's training documents in the order of one epoch, and the tokens of any stretch of it."""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainwright.runtime.data.indexed import TokenizedSource
from trainwright.runtime.data.split import mix


@dataclass(frozen=True)
class Epoch:
    """`document_D`: the documents in order; `begin_D`: where each begins in the epoch, in tokens."""

    document_D: NDArray[np.int64]
    begin_D: NDArray[np.int64]


def epoch(source: TokenizedSource, key: str) -> Epoch:
    """The order that belongs to `key`: documents sorted by a hash, so it is the same on every machine and version."""
    salt = np.frombuffer(hashlib.blake2b(key.encode(), digest_size=8).digest(), dtype="<u8")
    document_D = np.argsort(mix(mix(np.arange(len(source), dtype=np.uint64) + salt)), kind="stable")
    lengths_D = source.lengths_D[document_D]
    return Epoch(document_D, np.cumsum(lengths_D) - lengths_D)


def stretch(
    source: TokenizedSource, order: Epoch, start: int, count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Up to `count` tokens of the epoch from its token `start`, fewer at its end, and where in them documents begin."""
    stop = min(start + count, source.token_count)
    first = int(np.searchsorted(order.begin_D, start, side="right")) - 1
    last = int(np.searchsorted(order.begin_D, stop, side="left"))
    parts = [
        source.tokens(document, max(start - begin, 0), stop - begin)
        for document, begin in zip(
            order.document_D[first:last].tolist(), order.begin_D[first:last].tolist(), strict=True
        )
    ]
    begins = order.begin_D[first:last] - start
    return np.concatenate(parts).astype(np.int64), begins[begins >= 0]
