"""One optimizer step: micro-batches through Megatron-core's schedule, gradients summed, parameters updated.

The loss of a step is the mean over all counted tokens of the step, whatever layout computes it: each micro-batch gives
the sum over its tokens, and gradients are divided once by the number of counted tokens of all ranks.

S: tokens of a sequence that this context rank holds, B: sequences of a micro-batch, E: edges of documents, K: sources.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from megatron.core import parallel_state
from megatron.core.distributed import DistributedDataParallel
from megatron.core.optimizer import ChainedOptimizer
from megatron.core.pipeline_parallel import get_forward_backward_func
from torch import Tensor, distributed

from trainwright.kernels.context_parallel import zigzag
from trainwright.runtime import host
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


def micro_batch(sequences: Sequences) -> MicroBatch:
    """This context rank's slices of the sequences as the model takes them.

    No token predicts the first token of another document.
    """
    batch, width = sequences.tokens_BS1.shape
    counted = np.ones((batch, width - 1), dtype=np.float32)
    rows = []
    for b, starts in enumerate(sequences.starts):
        inner = [int(start) for start in starts if start > 0]
        counted[b, [start - 1 for start in inner]] = 0.0
        rows.append([0, *(start for start in inner if start < width - 1), width - 1])
    edges = None
    if any(len(row) > 2 for row in rows):
        longest = max(len(row) for row in rows)
        edges = torch.tensor([row + [width - 1] * (longest - len(row)) for row in rows], dtype=torch.int32)
    device = host.device()
    tokens = torch.from_numpy(sequences.tokens_BS1).to(device)
    tokens_BS, labels_BS, counted_BS = own_slices(tokens, torch.from_numpy(counted).to(device))
    return MicroBatch(
        tokens_BS=tokens_BS,
        labels_BS=labels_BS,
        counted_BS=counted_BS,
        sources_B=torch.from_numpy(np.asarray(sequences.sources_B, dtype=np.int64)).to(device),
        edges_BE=edges,
    )


def own_slices(tokens_BS1: Tensor, counted_BS: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """This context rank's tokens, labels and what counts of them, of whole sequences."""
    tokens_BS, labels_BS = tokens_BS1[:, :-1], tokens_BS1[:, 1:]
    ranks = parallel_state.get_context_parallel_world_size()
    if ranks <= 1:  # 0 where there is no process group
        return tokens_BS, labels_BS, counted_BS
    own_S = zigzag.positions(counted_BS.shape[1], parallel_state.get_context_parallel_rank(), ranks)
    own_S = own_S.to(tokens_BS1.device)
    return tokens_BS[:, own_S], labels_BS[:, own_S], counted_BS[:, own_S]


def own_micro_batches(batches: Batches, step: int, layout: Layout) -> list[MicroBatch]:
    """This rank's share of the step: data rank r takes the r-th run of micro-batches."""
    first = parallel_state.get_data_parallel_rank() * layout.micro_batches
    return [
        micro_batch(batches.sequences(step, index * layout.micro_batch, (index + 1) * layout.micro_batch))
        for index in range(first, first + layout.micro_batches)
    ]


def train_step(
    chunks: list[DistributedDataParallel],
    optimizer: ChainedOptimizer,
    micro_batches: list[MicroBatch],
    *,
    sources: int,
) -> tuple[Tensor, float]:
    """The parameters are updated; returns `sums_3K` and the global norm of the gradient before it was clipped.

    sums_3K, float64: by source the summed loss in nats, the counted labels and all tokens of this rank's sequences;
    zero but on the last pipeline stage of tensor rank 0, so that the sum over all ranks counts nothing twice.
    """
    with host.expected_warnings():
        for chunk in chunks:
            chunk.zero_grad_buffer()
        optimizer.zero_grad()
        results = get_forward_backward_func()(
            forward_step_func=partial(_forward, sources),
            data_iterator=[iter(micro_batches) for _ in chunks],
            model=chunks,
            num_microbatches=len(micro_batches),
            seq_length=micro_batches[0].tokens_BS.shape[1] * parallel_state.get_context_parallel_world_size(),
            micro_batch_size=micro_batches[0].tokens_BS.shape[0],
            forward_only=False,
        )
        _, gradient_norm, _ = optimizer.step()
    sums_3K = torch.zeros(3, sources, dtype=torch.float64, device=host.device())
    if parallel_state.get_tensor_model_parallel_rank() == 0:
        for result in results:
            sums_3K += result["sums_3K"]
    return sums_3K, float(gradient_norm)


def _forward(sources: int, batches: Iterator[MicroBatch], chunk: DistributedDataParallel) -> tuple[Tensor, Any]:
    """The chunk's output, and the function that makes a loss of the last one's."""
    batch = next(batches)
    output = chunk(batch.tokens_BS, None, batch.edges_BE, labels=batch.labels_BS)
    return output, partial(_loss, batch, sources)


def _loss(batch: MicroBatch, sources: int, loss_BS: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Summed loss to differentiate, number of counted tokens, figures to keep."""
    loss_B = (loss_BS * batch.counted_BS).sum(1)
    counted_B = batch.counted_BS.sum(1)
    figures_3B = torch.stack((loss_B.detach(), counted_B, torch.full_like(counted_B, loss_BS.shape[1]))).double()
    sums_3K = torch.zeros(3, sources, dtype=torch.float64, device=loss_B.device)
    sums_3K.index_add_(1, batch.sources_B, figures_3B)
    return loss_B.sum(), counted_B.sum().int(), {"sums_3K": sums_3K}


def over_all_ranks(values: Tensor) -> Tensor:
    """The values summed over all ranks, in place."""
    if distributed.get_world_size() > 1:
        distributed.all_reduce(values)
    return values
