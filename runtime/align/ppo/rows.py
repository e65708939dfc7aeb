"""Queries with their answers as packed rows, and what a forward pass makes of every token of an answer.

A query's row is `<s>`, the prompt and the answer but for its last token, which nothing follows: position t predicts
token t + 1, and the critic's output there is the value before that token is drawn.

B: rows of a micro-batch, S: their tokens that this context rank holds, E: edges of documents, L: tokens of an item;
N: counted tokens of all items, one item after the other; K: figures of each.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from megatron.core import parallel_state
from numpy.typing import NDArray
from torch import Tensor, nn

from trainwright.runtime import host
from trainwright.runtime.align.data.pack import pack
from trainwright.runtime.align.ppo.rollouts import Rollouts
from trainwright.runtime.train.language import document_edges, own_slice
from trainwright.runtime.train.objective import Figures, LossOf
from trainwright.runtime.train.step import forward_pass, over_all_ranks
from trainwright.spec.plan import Layout


@dataclass(frozen=True)
class Item:
    """One document of a row: what the model reads, what each position predicts, and how many positions count."""

    inputs_L: NDArray[np.int64]
    labels_L: NDArray[np.int64]
    counted: int  # the last ones


@dataclass(frozen=True)
class Rows:
    """A micro-batch on the device, but for the edges, which are those of whole rows."""

    tokens_BS: Tensor
    labels_BS: Tensor
    place_BS: Tensor  # of the position among the N counted ones; -1: it does not count
    edges_BE: Tensor | None

    @property
    def counted_BS(self) -> Tensor:
        return self.place_BS >= 0


def answered(rollouts: Rollouts, begin: int) -> list[Item]:
    """An item for each query with its answer, whose tokens count; `begin` is the id of `<s>`."""
    items = []
    for query, answer in zip(rollouts.queries, rollouts.answers, strict=True):
        tokens = np.concatenate([[begin], query.prompt, answer.tokens]).astype(np.int64)
        items.append(Item(tokens[:-1], tokens[1:], len(answer.tokens)))
    return items


class Packer:
    """Lays out items in rows, and shares the rows out over the data ranks."""

    def __init__(self, items: Sequence[Item], row_length: int, layout: Layout, seed: int) -> None:
        self._items, self._row_length, self._layout, self._seed = items, row_length, layout, seed
        counted = np.array([item.counted for item in items], dtype=np.int64)
        self.count = int(counted.sum())  # N
        self._first = np.cumsum(counted) - counted

    def tokens(self, chosen: Sequence[int]) -> int:
        """What a model reads of these items."""
        return sum(len(self._items[number].inputs_L) for number in chosen)

    def micro_batches(self, chosen: Sequence[int]) -> list[Rows]:
        """This rank's share of some items; every data rank has equally many. What fills them up counts nothing."""
        bins = pack([len(self._items[number].inputs_L) for number in chosen], self._row_length, self._seed)
        layout = self._layout
        rank = parallel_state.get_data_parallel_rank()
        own = [[chosen[place] for place in row] for row in bins[rank :: layout.data]]
        count = micro_batch_count(len(bins), layout)
        own += [[] for _ in range(count * layout.micro_batch - len(own))]
        return [self._rows(own[at : at + layout.micro_batch]) for at in range(0, len(own), layout.micro_batch)]

    def _rows(self, bins: Sequence[Sequence[int]]) -> Rows:
        tokens_BS = np.zeros((len(bins), self._row_length), dtype=np.int64)
        labels_BS = np.zeros_like(tokens_BS)
        place_BS = np.full_like(tokens_BS, -1)
        starts: list[list[int]] = []
        for row, numbers in enumerate(bins):
            stop = 0
            starts.append([])
            for number in numbers:
                item, first = self._items[number], self._first[number]
                start, stop = stop, stop + len(item.inputs_L)
                tokens_BS[row, start:stop] = item.inputs_L
                labels_BS[row, start:stop] = item.labels_L
                place_BS[row, stop - item.counted : stop] = np.arange(first, first + item.counted)
                starts[row].append(stop)  # what fills the row up is a document too
        return Rows(
            tokens_BS=_here(tokens_BS),
            labels_BS=_here(labels_BS),
            place_BS=_here(place_BS),
            edges_BE=document_edges(starts, self._row_length),
        )


def micro_batch_count(rows: int, layout: Layout) -> int:
    """Micro-batches of each data rank that hold so many rows; the interleaved schedule wants a multiple of stages."""
    count = max(1, -(-rows // (layout.data * layout.micro_batch)))
    return -(-count // layout.pipeline) * layout.pipeline if layout.virtual_pipeline > 1 else count


def _here(values_BS: NDArray[np.int64]) -> Tensor:
    """This context rank's positions, on the device."""
    return own_slice(torch.from_numpy(values_BS).to(host.device()))


FiguresOf = Callable[[Tensor, Tensor], Tensor]  # (last chunk's output, which positions count) -> figures_KN
Reader = Callable[[Any, Rows], tuple[Tensor, FiguresOf]]  # a chunk's output, and what to take from the last one's


def read_log_probs(chunk: Any, rows: Rows) -> tuple[Tensor, FiguresOf]:
    """log p of every label under a language model."""
    output = chunk(rows.tokens_BS, None, rows.edges_BE, labels=rows.labels_BS)
    return output, lambda loss_BS, counted_BS: -loss_BS[counted_BS][None]


def read_scores(chunk: Any, rows: Rows) -> tuple[Tensor, FiguresOf]:
    """What a model with a score head says of every position."""
    return chunk(rows.tokens_BS, None, rows.edges_BE), lambda score_BS, counted_BS: score_BS[counted_BS][None]


def read_all(
    chunks: Sequence[nn.Module], read: Reader, packer: Packer, micro_batches: Sequence[Rows], kinds: int = 1
) -> NDArray[np.float64]:
    """figures_KN of every counted position, `kinds` of each, on every rank. A collective."""

    def forward(chunk: Any, rows: Rows) -> tuple[Tensor, LossOf]:
        output, figures_of = read(chunk, rows)
        return output, partial(_kept, rows, figures_of)

    figures_KN = torch.zeros(kinds, packer.count, dtype=torch.float64, device=host.device())
    results = forward_pass(chunks, forward, micro_batches)
    if parallel_state.get_tensor_model_parallel_rank() == 0:
        for result in results:
            figures_KN[:, result["places"]] = result["figures"]
    # A position is counted on one rank alone, and zeros from the others change no bit of it.
    return np.asarray(over_all_ranks(figures_KN).cpu().numpy(), dtype=np.float64)


def _kept(rows: Rows, figures_of: FiguresOf, output: Tensor) -> tuple[Tensor, Tensor, Figures]:
    counted_BS = rows.counted_BS
    kept = {"places": rows.place_BS[counted_BS], "figures": figures_of(output, counted_BS).double()}
    return output.new_zeros(()), counted_BS.sum().int(), kept
