"""The objective of pre-training: every token predicts the next one of its document.

S: tokens of a sequence that this context rank holds, B: sequences of a micro-batch, E: edges of documents, K: sources,
in the order of their names.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from megatron.core import parallel_state
from torch import Tensor

from trainwright.kernels.context_parallel import zigzag
from trainwright.runtime import host
from trainwright.runtime.train.objective import Figures, LossOf
from trainwright.spec.plan import Layout


class Sequences(Protocol):
    """What `trainwright.runtime.data.batches` gives for a range of a step's sequences."""

    tokens_BS1: np.ndarray[Any, np.dtype[np.int64]]  # a whole sequence and one token more, which is a label only
    sources_B: np.ndarray[Any, Any]  # index into the sorted names of the mixture
    starts: Sequence[np.ndarray[Any, Any]]  # positions of the first tokens of documents, in all of tokens_BS1


class Batches(Protocol):
    """A phase's batches: a pure function of the step and of the place in it."""

    def sequences(self, step: int, start: int, stop: int) -> Sequences: ...


@dataclass(frozen=True)
class MicroBatch:
    """Tensors on the device, but for the edges, which attention reads on the CPU: they are those of whole sequences."""

    tokens_BS: Tensor
    labels_BS: Tensor
    counted_BS: Tensor  # float: 1 where the label counts, 0 where it is the first token of a document
    sources_B: Tensor
    edges_BE: Tensor | None


class LanguageLoss:
    """Mean loss over all tokens, of a mixture of sources."""

    def __init__(self, names: Sequence[str]) -> None:
        """`names`: the sources that the micro-batches' indices mean."""
        self._names = list(names)

    @property
    def figures(self) -> int:
        """By source: the summed loss in nats, the counted labels, and all tokens of the sequences."""
        return 3 * len(self._names)

    def forward(self, chunk: Any, batch: MicroBatch) -> tuple[Tensor, LossOf]:
        output = chunk(batch.tokens_BS, None, batch.edges_BE, labels=batch.labels_BS)
        return output, partial(self._loss, batch)

    def _loss(self, batch: MicroBatch, loss_BS: Tensor) -> tuple[Tensor, Tensor, Figures]:
        loss_B = (loss_BS * batch.counted_BS).sum(1)
        counted_B = batch.counted_BS.sum(1)
        figures_3B = torch.stack((loss_B.detach(), counted_B, torch.full_like(counted_B, loss_BS.shape[1]))).double()
        sums_3K = torch.zeros(3, len(self._names), dtype=torch.float64, device=loss_B.device)
        sums_3K.index_add_(1, batch.sources_B, figures_3B)
        return loss_B.sum(), counted_B.sum().int(), {"figures": sums_3K.flatten()}

    def metrics(self, figures: Sequence[float]) -> dict[str, float]:
        losses, counted, _ = self._by_kind(figures)
        sums = zip(self._names, losses, counted, strict=True)
        return {
            "train/loss": sum(losses) / max(1.0, sum(counted)),
            **{f"train_loss_by_source/{name}": loss / count for name, loss, count in sums if count},
        }

    def consumed(self, figures: Sequence[float]) -> dict[str, int]:
        return dict(zip(self._names, map(int, self._by_kind(figures)[2]), strict=True))

    def _by_kind(self, figures: Sequence[float]) -> list[Sequence[float]]:
        count = len(self._names)
        return [figures[i * count : (i + 1) * count] for i in range(3)]


class LanguageObjective(LanguageLoss):
    """The batches of a phase, shared out over its data ranks."""

    def __init__(self, batches: Batches, names: Sequence[str], layout: Layout) -> None:
        super().__init__(names)
        self._batches, self._layout = batches, layout

    def micro_batches(self, step: int) -> list[MicroBatch]:
        size = self._layout.micro_batch
        return [micro_batch(self._batches.sequences(step, at, at + size)) for at in own_places(self._layout)]


def own_places(layout: Layout) -> range:
    """Where in a step's sequences this rank's micro-batches begin: data rank r takes the r-th run of them."""
    own = layout.micro_batch * layout.micro_batches
    first: int = parallel_state.get_data_parallel_rank() * own
    return range(first, first + own, layout.micro_batch)


def micro_batch(sequences: Sequences) -> MicroBatch:
    """This context rank's slices of the sequences as the model takes them.

    No token predicts the first token of another document.
    """
    batch, width = sequences.tokens_BS1.shape
    counted = np.ones((batch, width - 1), dtype=np.float32)
    inner = [[int(start) for start in starts if start > 0] for starts in sequences.starts]
    for b, starts in enumerate(inner):
        counted[b, [start - 1 for start in starts]] = 0.0
    device = host.device()
    tokens = torch.from_numpy(sequences.tokens_BS1).to(device)
    tokens_BS, labels_BS, counted_BS = own_slices(tokens, torch.from_numpy(counted).to(device))
    return MicroBatch(
        tokens_BS=tokens_BS,
        labels_BS=labels_BS,
        counted_BS=counted_BS,
        sources_B=torch.from_numpy(np.asarray(sequences.sources_B, dtype=np.int64)).to(device),
        edges_BE=document_edges(inner, width - 1),
    )


def document_edges(starts: Sequence[Sequence[int]], length: int) -> Tensor | None:
    """edges_BE on the CPU from the places, beyond 0, where documents begin; None where no sequence has two."""
    rows = [[0, *(start for start in row if start < length), length] for row in starts]
    if all(len(row) == 2 for row in rows):
        return None
    longest = max(len(row) for row in rows)
    return torch.tensor([row + [length] * (longest - len(row)) for row in rows], dtype=torch.int32)


def own_slices(tokens_BS1: Tensor, counted_BS: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """This context rank's tokens, labels and what counts of them, of whole sequences."""
    return own_slice(tokens_BS1[:, :-1]), own_slice(tokens_BS1[:, 1:]), own_slice(counted_BS)


def own_slice(whole_BS: Tensor) -> Tensor:
    """This context rank's positions of whole sequences."""
    ranks = parallel_state.get_context_parallel_world_size()
    if ranks <= 1:  # 0 where there is no process group
        return whole_BS
    own_S = zigzag.positions(whole_BS.shape[1], parallel_state.get_context_parallel_rank(), ranks)
    return whole_BS[:, own_S.to(whole_BS.device)]
