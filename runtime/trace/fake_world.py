"""One process that is any rank of a planned world: collectives that move nothing, tensors that hold nothing.

What is set up here is global to the process, so a process traces one rank and ends (see `worker.py`).
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from megatron.core.optimizer import clip_grads
from megatron.core.tensor_parallel import random as megatron_random
from torch import Tensor, distributed, nn
from torch._C._distributed_c10d import FakeWork
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.testing._internal.distributed.fake_pg import FakeStore

from trainwright.kernels import cross_entropy, linear_cross_entropy
from trainwright.kernels.context_parallel import gathered, local
from trainwright.runtime.train import parallel
from trainwright.spec.plan import Layout

# Collectives over several tensors, for which torch 2.13 has no implementation that works without values.
_COALESCED = ("allgather_into_tensor_coalesced_", "allreduce_coalesced_", "reduce_scatter_tensor_coalesced_")
_library = torch.library.Library("c10d", "IMPL")  # type: ignore[no-untyped-call]


@contextmanager
def fake_world(layout: Layout, rank: int, *, on_gpu: bool) -> Iterator[None]:
    """Inside the block this process is `rank` of the layout, and a tensor that is made has a size and no memory.

    `on_gpu`: operators whose code differs between devices do what they do on a GPU. Raises UnsupportedLayoutError.
    """
    for name in _COALESCED:
        _library.impl(name, lambda *_: FakeWork().boxed(), "Meta")  # type: ignore[no-untyped-call]
    distributed.init_process_group("fake", store=FakeStore(), rank=rank, world_size=layout.world_size)
    parallel.initialize(layout, seed=0)
    distributed.all_gather_object = _all_gather_object  # type: ignore[assignment]
    clip_grads.l2_norm_impl = _norm
    # All is made on the one device there is; a fake parameter cannot be moved.
    nn.Module.to = lambda self, *_: self  # type: ignore[method-assign]
    # There is nothing to copy, and the attempt would keep both storages alive.
    torch.UntypedStorage.copy_ = lambda self, *_: self  # type: ignore[method-assign]
    # Random states are saved, compared and set back, which needs values; nothing of ours draws from them.
    megatron_random.CudaRNGStatesTracker.fork = lambda *_: nullcontext()
    megatron_random._fork_rng = nullcontext
    megatron_random._get_all_rng_states = lambda: ()
    megatron_random._set_all_rng_states = lambda: None
    linear_cross_entropy._check = lambda *_: None  # there are no labels to look at
    if on_gpu:
        cross_entropy._by_cache = lambda logits_NV: False
        linear_cross_entropy._on_cpu = lambda hidden_NH: False
        gathered._on_cpu = lambda q_SBHD: False
        local._cpu_forward, local._cpu_backward = local._flash_forward, local._flash_backward
        functional.scaled_dot_product_attention = _gpu_attention  # type: ignore[assignment]
        torch.log_softmax = _gpu_log_softmax  # type: ignore[assignment]
    with _NoValues(allow_non_fake_inputs=True):
        yield


def _all_gather_object(into: list[Any], value: Any, group: Any = None) -> None:
    """Every rank says what this one does: it is only used for the optimizer's groups of parameters."""
    into[:] = [value] * len(into)


def _norm(chunk_size: int, flag: Tensor, tensors: list[list[Tensor]], *_: Any) -> tuple[Tensor, None]:
    """Megatron's local_multi_tensor_l2_norm, which reads each norm back while it stacks them."""
    norms = [torch.norm(tensor) for group in tensors for tensor in group]
    return torch.norm(torch.stack(norms)).reshape(1), None


class _NoValues(FakeTensorMode):  # type: ignore[no-untyped-call]
    """Fake tensors; a number read back from one is large, so that gradients are clipped."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            dtype = args[0].dtype
            return True if dtype is torch.bool else 1e6 if dtype.is_floating_point else 1
        return super().__torch_dispatch__(func, types, args, kwargs)


def _gpu_attention(query: Tensor, key: Tensor, value: Tensor, *, is_causal: bool, scale: float | None, **_: Any) -> Any:
    """scaled_dot_product_attention as torch does it on a CUDA device: FlashAttention for half precision.

    In fp32 torch has no fused kernel there whose queries share keys; without sharing, its memory-efficient kernel keeps
    what FlashAttention keeps.
    """
    if query.dtype is torch.float32 and query.shape[1] != key.shape[1]:
        return torch.ops.aten._scaled_dot_product_attention_math(
            query, key, value, is_causal=is_causal, scale=scale, enable_gqa=True
        )[0]
    return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value, 0.0, is_causal, scale=scale)[0]


def _gpu_log_softmax(logits: Tensor, dim: int, dtype: torch.dtype) -> Tensor:
    """log_softmax on a CUDA device: one kernel reads half precision and writes fp32, with no copy between."""
    return torch.empty_like(logits, dtype=dtype)


def flash_backward_scratch_bytes(query_BHSD: Tensor, key_BGTD: Tensor) -> int:
    """What FlashAttention 2's backward pass allocates for itself, as torch 2.13 calls it (mha_bwd in flash_api.cpp).

    Positions are rounded up to 128, the head size to 32: the query's gradient in fp32, a number a row in fp32, and with
    grouped queries the gradients of keys and values of every query head.
    """
    batch, heads, queries, size = query_BHSD.shape
    groups, keys = key_BGTD.shape[1:3]
    rows, width = -(-queries // 128) * 128, -(-size // 32) * 32
    expanded = 2 * batch * keys * heads * size * query_BHSD.element_size() if heads != groups else 0
    return 4 * batch * heads * rows * (width + 1) + expanded
