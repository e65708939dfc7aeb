"""One optimizer step: micro-batches through Megatron-core's schedule, gradients summed, parameters updated.

The loss of a step is the mean over all that counts in it, whatever layout computes it: each micro-batch gives a sum,
and gradients are divided once by the number of summands of all ranks.

F: figures that the loss keeps.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.distributed import DistributedDataParallel
from megatron.core.optimizer import ChainedOptimizer
from megatron.core.pipeline_parallel import get_forward_backward_func
from torch import Tensor, distributed, nn

from trainwright.runtime import host
from trainwright.runtime.train.objective import Figures, Loss, LossOf, Objective, Shaped

Forward = Callable[[Any, Any], tuple[Tensor, LossOf]]


def train_step(
    chunks: list[DistributedDataParallel],
    optimizer: ChainedOptimizer,
    loss: Loss,
    micro_batches: Sequence[Shaped],
) -> tuple[Tensor, float]:
    """The parameters are updated; returns `figures_F` and the global norm of the gradient before it was clipped.

    figures_F, float64, are of this rank's share; zero but on the last pipeline stage of tensor rank 0, so that the sum
    over all ranks counts nothing twice.
    """
    with host.expected_warnings():
        for chunk in chunks:
            chunk.zero_grad_buffer()
        optimizer.zero_grad()
        results = _schedule(chunks, loss.forward, micro_batches, forward_only=False)
        _, gradient_norm, _ = optimizer.step()
    return _summed(results, loss.figures), float(gradient_norm)


def evaluate(chunks: Sequence[nn.Module], objective: Objective, steps: int) -> list[float]:
    """The figures of the first `steps` steps of the objective, of all ranks; nothing is trained. A collective."""
    figures_F = torch.zeros(objective.figures, dtype=torch.float64, device=host.device())
    for step in range(steps):
        figures_F += _summed(forward_pass(chunks, objective.forward, objective.micro_batches(step)), objective.figures)
    figures: list[float] = over_all_ranks(figures_F).tolist()
    return figures


def forward_pass(chunks: Sequence[nn.Module], forward: Forward, micro_batches: Sequence[Shaped]) -> list[Figures]:
    """What the loss function keeps of each micro-batch, on the last pipeline stage; nothing on the others.

    Without gradients, in evaluation mode. All ranks of a layout call it, with equally many micro-batches.
    """
    with host.expected_warnings(), torch.no_grad(), _evaluating(chunks):
        return _schedule(chunks, forward, micro_batches, forward_only=True)


def _schedule(
    chunks: Sequence[nn.Module], forward: Forward, micro_batches: Sequence[Shaped], *, forward_only: bool
) -> list[Figures]:
    batch, length = micro_batches[0].tokens_BS.shape

    def next_forward(batches: Iterator[Shaped], chunk: nn.Module) -> tuple[Tensor, LossOf]:
        return forward(chunk, next(batches))

    results: list[Figures] = get_forward_backward_func()(
        forward_step_func=next_forward,
        data_iterator=[iter(micro_batches) for _ in chunks],
        model=list(chunks),
        num_microbatches=len(micro_batches),
        seq_length=length * parallel_state.get_context_parallel_world_size(),
        micro_batch_size=batch,
        forward_only=forward_only,
    )
    return results


def _summed(results: Sequence[Figures], figures: int) -> Tensor:
    figures_F = torch.zeros(figures, dtype=torch.float64, device=host.device())
    if parallel_state.get_tensor_model_parallel_rank() == 0:
        for result in results:
            figures_F += result["figures"]
    return figures_F


@contextmanager
def _evaluating(chunks: Sequence[nn.Module]) -> Iterator[None]:
    """Inside the block nothing is made again in a backward pass that never comes."""
    before = [chunk.training for chunk in chunks]
    for chunk in chunks:
        chunk.eval()
    try:
        yield
    finally:
        for chunk, training in zip(chunks, before, strict=True):
            chunk.train(training)


def over_all_ranks(values: Tensor) -> Tensor:
    """The values summed over all ranks, in place."""
    if distributed.get_world_size() > 1:
        distributed.all_reduce(values)
    return values
