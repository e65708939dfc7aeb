"""Packed rows on the device: which document each token belongs to, and sums over documents.

B rows of a micro-batch, S positions of a row that this context rank holds, D documents of the micro-batch, padding
included, E edges of documents, N items of an epoch.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from msgspec import structs
from numpy.typing import ArrayLike
from torch import Tensor

from trainwright.runtime import host
from trainwright.runtime.align.data.pack import PackedBatch, PackedRows, pack
from trainwright.runtime.train.language import document_edges, own_places, own_slice
from trainwright.spec.plan import TrainingStage

Trained = TypeVar("Trained", bound=TrainingStage)
PADDING = -1  # the owner of what is no document


@dataclass(frozen=True)
class PackedMicroBatch:
    """Tensors on the device, but for the edges, which attention reads on the CPU: they are those of whole rows.

    `document_BS` numbers the documents of all rows in order. `owner_D`: whatever a document belongs to, by number;
    PADDING for what fills a row up.
    """

    tokens_BS: Tensor
    labels_BS: Tensor
    counted_BS: Tensor  # float: 1 where the label counts
    document_BS: Tensor
    owner_D: Tensor
    edges_BE: Tensor | None

    def document_sums(self, values_BS: Tensor) -> Tensor:
        """sums_D of the values over each document's tokens on this context rank.

        In float64, so that no order of additions shows in fp32.
        """
        zeros_D = torch.zeros(len(self.owner_D), dtype=torch.float64, device=values_BS.device)
        return zeros_D.index_add(0, self.document_BS.flatten(), values_BS.flatten().double())


def micro_batch(batch: PackedBatch, owners: Sequence[Sequence[int]]) -> PackedMicroBatch:
    """This context rank's slices of the rows.

    `owners`: of each row's documents. A row that has one document more is filled up from there on.
    """
    rows, length = batch.tokens_BS1.shape[0], batch.tokens_BS1.shape[1] - 1
    inner = [[int(start) for start in starts if 0 < start < length] for starts in batch.starts]
    begins_BS = np.zeros((rows, length), dtype=np.int64)
    owner_D: list[int] = []
    for b, (starts, own) in enumerate(zip(inner, owners, strict=True)):
        begins_BS[b, [0, *starts]] = 1
        owner_D += [*own, *[PADDING] * (len(starts) + 1 - len(own))]
    document_BS = np.cumsum(begins_BS).reshape(rows, length) - 1
    device = host.device()
    tokens_BS1 = torch.from_numpy(batch.tokens_BS1).to(device)
    return PackedMicroBatch(
        tokens_BS=own_slice(tokens_BS1[:, :-1]),
        labels_BS=own_slice(tokens_BS1[:, 1:]),
        counted_BS=own_slice(torch.from_numpy(batch.counted_BS1[:, 1:].astype(np.float32)).to(device)),
        document_BS=own_slice(torch.from_numpy(document_BS).to(device)),
        owner_D=torch.tensor(owner_D, dtype=torch.int64, device=device),
        edges_BE=document_edges(inner, length),
    )


def pack_epochs(lengths_N: ArrayLike, row_length: int, *, seed: int, epochs: int) -> PackedRows:
    """The rows of every epoch, one epoch after the other: each has all items once, in an order of its own."""
    return PackedRows.chain([pack(lengths_N, row_length, _seed_of(seed, epoch)) for epoch in range(epochs)])


def _seed_of(seed: int, epoch: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}/{epoch}".encode(), digest_size=8).digest(), "little")


def as_long_as(stage: Trained, rows: int) -> Trained:
    """The stage with as many steps as its rows fill, of which empty rows fill the last one, and its curve over them."""
    steps = -(-rows // stage.sequences_per_step)
    curve = structs.replace(stage.learning_rate, decay_steps=steps)
    return structs.replace(stage, steps=steps, learning_rate=curve)


def own_rows(stage: TrainingStage, step: int) -> list[range]:
    """The numbers of the rows in each of this rank's micro-batches of the step."""
    before, size = step * stage.sequences_per_step, stage.layout.micro_batch
    return [range(before + at, before + at + size) for at in own_places(stage.layout)]
