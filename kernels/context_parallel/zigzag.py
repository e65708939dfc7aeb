"""Which tokens a context rank holds, and which documents its queries and another's keys share.

A sequence of T tokens is cut into 2 P slices of n tokens; of P ranks, rank r holds slices r and 2 P - 1 - r, one behind
the other. Under a causal mask an early slice sees little and a late one much, so every rank has the same work
(Llama 3, section 3.3.2; Megatron-core's `get_batch_on_this_cp_rank`).

Runs of P / W consecutive ranks hold, put together, what one of W ranks would hold: the cut nests, and so exchanges do.

A document is a run of queries and a run of keys in the fields of `trainwright.kernels.packing`: row, start and length
of the queries, start and length of the keys, counted in what a rank holds.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor

Documents = tuple[tuple[int, int, int, int, int], ...]
Edges = tuple[tuple[int, ...], ...]  # by row, as in `trainwright.kernels.attention`


@dataclass(frozen=True)
class Block:
    """What one call of local attention computes of a ring: queries from `first_query` on against a block of keys."""

    first_query: int
    documents: Documents
    causal: bool


def runs(length: int, rank: int, ranks: int) -> tuple[tuple[int, int], ...]:
    """First position and length of the rank's two slices of a sequence. Raises ValueError if it cannot be cut."""
    size, rest = divmod(length, 2 * ranks)
    if rest:
        raise ValueError(f"a sequence of {length} tokens cannot be cut into 2 x {ranks} slices")
    return (rank * size, size), ((2 * ranks - 1 - rank) * size, size)


def positions(length: int, rank: int, ranks: int) -> Tensor:
    """positions_S of the rank's tokens, on the CPU."""
    return torch.cat([torch.arange(first, first + size) for first, size in runs(length, rank, ranks)])


def edges_of(edges_BE: Tensor | None, rows: int, length: int) -> Edges:
    """The edges as numbers; one document a row without them."""
    if edges_BE is None:
        return ((0, length),) * rows
    return tuple(tuple(row) for row in edges_BE.tolist())


# The layers of a model ask for the same micro-batch one after the other.
@lru_cache(maxsize=64)
def gathered(edges: Edges, rank: int, ranks: int) -> tuple[Documents, Documents]:
    """The documents of the rank's early and of its late slice; keys are those of the whole sequence, in order.

    A document's last query in a slice is its last visible key, so each is causal with both ends aligned. The keys of
    the two slices overlap, their queries do not.
    """
    size = edges[0][-1] // (2 * ranks)
    early, late = (
        tuple(
            (row, place * size + first - index * size, last - first, start, last - start)
            for row, marks in enumerate(edges)
            for start, stop in pairwise(marks)
            if (first := max(start, index * size)) < (last := min(stop, (index + 1) * size))
        )
        for place, index in enumerate((rank, 2 * ranks - 1 - rank))
    )
    return early, late


@lru_cache(maxsize=512)
def block(edges: Edges, rank: int, other: int, ranks: int) -> Block:
    """What the queries of `rank` see of the keys that `other` holds.

    Of an earlier rank's keys all queries see the early slice; of a later rank's the late queries see both. A document
    that lies in both slices of a rank fills all between them, so its part is one run in what the rank holds.
    """
    size = edges[0][-1] // (2 * ranks)
    late = 2 * ranks - 1
    queries = (rank, late - rank) if other <= rank else (late - rank,)
    keys = (other, late - other) if other >= rank else (other,)
    documents = []
    for row, marks in enumerate(edges):
        for start, stop in pairwise(marks):
            query, key = _run(start, stop, queries, size), _run(start, stop, keys, size)
            if query[1] and key[1]:
                documents.append((row, *query, *key))
    return Block(0 if other <= rank else size, tuple(documents), other == rank)


def _run(start: int, stop: int, slices: tuple[int, ...], size: int) -> tuple[int, int]:
    """Start and length of the positions [start, stop) among these slices, laid one behind the other."""
    first, length = 0, 0
    for place, index in enumerate(slices):
        low, high = max(start, index * size), min(stop, (index + 1) * size)
        if low < high:
            first = first if length else place * size + low - index * size
            length += high - low
    return first, length
