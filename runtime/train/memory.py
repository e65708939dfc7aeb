"""What a training step holds, in bytes of tensors, by kind: the figure that a plan's `allocated_bytes` predicts.

The convention, the same on every device: what torch's allocator has handed out at the peak of a step. Parameters,
gradients and the optimizer's state are counted as they lie there, each storage once; `step_bytes`, which is
activations, logits, exchanges and temporaries together, is the rest of the peak. On CUDA the peak is
`torch.cuda.max_memory_allocated`. A CPU's allocator keeps no peak, so it is summed up from the allocator's events in
one profiled step, which takes about a tenth longer. Not in it: what libraries allocate on their own (a product's
scratch, a collective's buffers) and the process itself; `memory/max_active_gb` has those on a CPU.
"""

from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass

import torch
from megatron.core.distributed import DistributedDataParallel
from megatron.core.optimizer import ChainedOptimizer
from torch import Tensor, distributed

from trainwright.runtime import host

MEASURED_STEP = 2  # of an attempt: the first one still allocates the optimizer's state
GB = 1e9


@dataclass(frozen=True)
class StepMemory:
    """Bytes of one rank at the peak of a step."""

    parameters_bytes: float
    gradients_bytes: float
    optimizer_bytes: float
    step_bytes: float

    @property
    def allocated_bytes(self) -> float:
        return self.parameters_bytes + self.gradients_bytes + self.optimizer_bytes + self.step_bytes

    def metrics(self) -> dict[str, float]:
        """The rank's figures as rows of metrics, in 10^9 bytes."""
        return {
            "memory/parameters_gb": self.parameters_bytes / GB,
            "memory/gradients_gb": self.gradients_bytes / GB,
            "memory/optimizer_gb": self.optimizer_bytes / GB,
            "memory/step_gb": self.step_bytes / GB,
            "memory/allocated_gb": self.allocated_bytes / GB,
        }


def measure(
    chunks: list[DistributedDataParallel], optimizer: ChainedOptimizer, growth_bytes: float | None
) -> StepMemory:
    """The memory of the fullest rank, the same on every rank. A collective.

    `growth_bytes` is what the step held at most beyond what lay there before it; None: CUDA knows.
    """
    parameters = _storages(parameter for chunk in chunks for parameter in chunk.parameters())
    gradients = _storages(buffer.grad_data for chunk in chunks for buffer in chunk.buffers)
    state = [value for part in optimizer.chained_optimizers for value in _tensors(part.optimizer)]
    counted = {**parameters, **gradients}
    kept = sum(size for place, size in _storages(state).items() if place not in counted)
    states = float(sum(parameters.values())), float(sum(gradients.values())), float(kept)
    if growth_bytes is None:
        growth_bytes = torch.cuda.max_memory_allocated() - sum(states)
    return _fullest(StepMemory(*states, growth_bytes))


def _tensors(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    """All that an optimizer keeps: its own copies of parameters, and their moments."""
    for group in optimizer.param_groups:
        yield from group["params"]
    for state in optimizer.state.values():
        yield from (value for value in state.values() if isinstance(value, Tensor))


def _storages(tensors: Iterable[Tensor]) -> dict[int, int]:
    """Where each storage lies -> its bytes: views of one buffer count once."""
    storages = (tensor.untyped_storage() for tensor in tensors)
    return {storage.data_ptr(): storage.nbytes() for storage in storages}


def _fullest(own: StepMemory) -> StepMemory:
    figures = torch.tensor(astuple(own), dtype=torch.float64, device=host.device())
    ranks = [torch.empty_like(figures) for _ in range(distributed.get_world_size())]
    distributed.all_gather(ranks, figures)
    return max((StepMemory(*rank.tolist()) for rank in ranks), key=lambda memory: memory.allocated_bytes)
