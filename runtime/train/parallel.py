"""The processes of a layout: torch's process group and Megatron-core's groups inside it."""

from datetime import timedelta

import torch
from megatron.core import parallel_state, tensor_parallel
from torch import distributed
from torch._C._distributed_c10d import HashStore

from trainwright.runtime import host
from trainwright.spec.plan import Layout


class UnsupportedLayoutError(Exception):
    """The layout is valid, but this version cannot run it."""


def refuse_unsupported(layout: Layout) -> None:
    """Raises UnsupportedLayoutError for what plans can hold but this version cannot run."""
    reasons = {
        f"zero = {layout.zero} is not built yet: ZeRO 0 and 1 are": layout.zero > 1,
        "weight parallelism is not built yet": layout.weight > 1,
        "offloading to the host's memory is not built yet": bool(layout.offload),
        "keeping gathered inputs is not built": layout.keep_gathered,
    }
    for reason, holds in reasons.items():
        if holds:
            raise UnsupportedLayoutError(reason)


def optimizer_shards(layout: Layout) -> int:
    """Neighbouring ranks that share one copy of the optimizer's state; 1 if each has all of it."""
    return layout.zero_group * layout.context if layout.zero else 1


def optimizer_copies(layout: Layout) -> int:
    """Copies of a sharded optimizer's state, between which gradients are summed; 1 if it is not sharded."""
    shards = optimizer_shards(layout)
    return layout.data * layout.context // shards if shards > 1 else 1


def initialize(
    layout: Layout,
    *,
    seed: int,
    rank: int = -1,
    world_size: int = -1,
    init_method: str = "env://",
    timeout_s: float = 1800.0,
    first_device: int = 0,
) -> None:
    """This process is one of the layout's, in torch.distributed and in Megatron-core's groups.

    `init_method` is where the processes meet; with `env://` torch takes rank and size from torchrun's environment.
    Ranks have devices from `first_device` on.
    Raises UnsupportedLayoutError, ValueError if the number of processes is not the layout's.
    """
    refuse_unsupported(layout)
    if not distributed.is_initialized():
        distributed.init_process_group(
            host.backend(),
            init_method=init_method,
            rank=rank,
            world_size=world_size,
            timeout=timedelta(seconds=timeout_s),
        )
    if distributed.get_world_size() != layout.world_size:
        started = distributed.get_world_size()
        distributed.destroy_process_group()
        raise ValueError(f"the layout needs {layout.world_size} processes, but {started} were started")
    if torch.cuda.is_available():
        device = first_device + distributed.get_rank()  # as in plan.Placement
        torch.cuda.set_device(device % torch.cuda.device_count())
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=layout.tensor,
        pipeline_model_parallel_size=layout.pipeline,
        virtual_pipeline_model_parallel_size=layout.virtual_pipeline if layout.virtual_pipeline > 1 else None,
        context_parallel_size=layout.context,
        hierarchical_context_parallel_sizes=_context_levels(layout),
        num_distributed_optimizer_instances=optimizer_copies(layout),
        create_gloo_process_groups=False,
    )
    # Megatron's random states must exist, but nothing draws from them: there is no dropout, weights have their own.
    tensor_parallel.model_parallel_cuda_manual_seed(seed, force_reset_rng=True)


def _context_levels(layout: Layout) -> list[int] | None:
    """Neighbours that exchange heads for tokens, and how many such groups there are."""
    return [layout.context_heads, layout.context // layout.context_heads] if layout.context_heads > 1 else None


def finalize() -> None:
    """No process group is left."""
    parallel_state.destroy_model_parallel()
    if distributed.is_initialized():
        distributed.destroy_process_group()


def is_last_stage() -> bool:
    """Whether this rank holds the model's head."""
    rank: int = parallel_state.get_pipeline_model_parallel_rank()
    size: int = parallel_state.get_pipeline_model_parallel_world_size()
    return rank == size - 1


def single(seed: int = 0) -> None:
    """This process is a world of its own: for evaluation, sampling and export. No port is opened."""
    distributed.init_process_group(host.backend(), store=HashStore(), rank=0, world_size=1)
    parallel_state.initialize_model_parallel(create_gloo_process_groups=False)
    tensor_parallel.model_parallel_cuda_manual_seed(seed, force_reset_rng=True)


def barrier() -> None:
    """Every rank has come here."""
    if host.backend() == "nccl":
        distributed.barrier(device_ids=[torch.cuda.current_device()])
    else:
        distributed.barrier()
