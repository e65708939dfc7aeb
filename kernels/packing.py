"""Where the documents of a pack lie: what variable-length attention is told instead of a mask.

A pack is one or more rows of tokens; a document is a run of queries and a run of keys of one row, each a (start,
length) pair. Rows may have gaps that belong to no document, and lengths may differ: queries are then aligned to the
end of the keys ("bottom right"), as in decoding or where context-parallel ranks gathered the keys.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise

import torch
from torch import Tensor

FIELDS = 5  # row, start and length of the queries, start and length of the keys


@dataclass(frozen=True, eq=False)
class Packing:
    """`documents_N5` (int32, on the CPU): row, start and length of the queries, start and length of the keys."""

    documents_N5: Tensor

    @classmethod
    def from_edges(cls, edges: tuple[tuple[int, ...], ...], queries: int) -> "Packing":
        """Documents between ascending edges, row by row; the queries are the last `queries` positions of a row."""
        rows = []
        for row, marks in enumerate(edges):
            hidden = marks[-1] - queries  # keys before the first query
            for start, stop in pairwise(marks):
                first = max(start, hidden)
                if first < stop:
                    rows.append((row, first - hidden, stop - first, start, stop - start))
        return cls(torch.tensor(rows, dtype=torch.int32).reshape(-1, FIELDS))

    @classmethod
    def whole_rows(cls, rows: int, queries: int, keys: int) -> "Packing":
        """One document a row."""
        return cls(torch.tensor([(row, 0, queries, 0, keys) for row in range(rows)], dtype=torch.int32))

    def covers(self, rows: int, queries: int, keys: int) -> tuple[bool, bool]:
        """Whether every query and every key of the pack belongs to a document."""
        lengths = self.documents_N5.long().sum(0)
        return int(lengths[2]) == rows * queries, int(lengths[4]) == rows * keys

    @cached_property
    def key(self) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(document) for document in self.documents_N5.tolist())

    def on(self, device: torch.device) -> Tensor:
        """`documents_N5` on the device; copied once."""
        return _on(self.key, device)

    def query_tiles(self, size: int, *, causal: bool, window: int | None, device: torch.device) -> Tensor:
        """tiles_T2 (int32): document and number of each tile of `size` queries, the one with most keys first."""
        return _tiles(self.key, size, causal, window, device, True)

    def key_tiles(self, size: int, *, causal: bool, window: int | None, device: torch.device) -> Tensor:
        """tiles_T2 (int32): document and number of each tile of `size` keys, the one with most queries first."""
        return _tiles(self.key, size, causal, window, device, False)


# The layers of a model ask for the same micro-batch one after the other.
@lru_cache(maxsize=64)
def _on(documents: tuple[tuple[int, ...], ...], device: torch.device) -> Tensor:
    return torch.tensor(documents, dtype=torch.int32).reshape(-1, FIELDS).to(device)


@lru_cache(maxsize=128)
def _tiles(
    documents: tuple[tuple[int, ...], ...],
    size: int,
    causal: bool,
    window: int | None,
    device: torch.device,
    of_queries: bool,
) -> Tensor:
    """A program for each tile that exists: a thousand short documents beside a long one start no idle program."""
    fields_N5 = torch.tensor(documents, dtype=torch.long).reshape(-1, FIELDS)
    queries_N, keys_N = fields_N5[:, 2], fields_N5[:, 4]
    own_N = queries_N if of_queries else keys_N
    counts_N = (own_N + size - 1) // size
    document_T = torch.repeat_interleave(torch.arange(len(documents)), counts_N)
    number_T = torch.arange(len(document_T)) - (counts_N.cumsum(0) - counts_N)[document_T]
    queries_T, keys_T = queries_N[document_T], keys_N[document_T]
    offset_T = keys_T - queries_T
    if of_queries:
        stop_T = torch.minimum(keys_T, (number_T + 1) * size + offset_T) if causal else keys_T
        start_T = number_T * size + offset_T - window + 1 if window is not None else torch.zeros_like(stop_T)
    else:
        stop_T = queries_T
        if window is not None:
            stop_T = torch.minimum(queries_T, (number_T + 1) * size - 1 - offset_T + window)
        start_T = number_T * size - offset_T if causal else torch.zeros_like(stop_T)
    work_T = stop_T - start_T.clamp(min=0)
    order_T = torch.sort(work_T, descending=True, stable=True).indices
    return torch.stack((document_T, number_T), 1)[order_T].int().contiguous().to(device)
