"""Every rank gathers all keys and values, then attends with its own queries in one call (Llama 3, section 3.3.2).

S: tokens of this rank, T: of the whole sequence, B: rows, H: query heads, G: key and value heads, D: head size.
Kept for the backward pass: the rank's own q, k, v, o and lse. It gathers keys and values again, and their gradients are
summed and sent in fp32 (in float64 for float64).
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed import ProcessGroup

from trainwright.kernels.context_parallel.exchange import gather, scatter_sum
from trainwright.kernels.context_parallel.local import Local
from trainwright.kernels.context_parallel.zigzag import Edges, gathered


def gathered_attention(
    q_SBHD: Tensor, k_SBGD: Tensor, v_SBGD: Tensor, edges: Edges, scale: float, group: ProcessGroup, local: Local
) -> Tensor:
    """o_SBHD of this rank's queries over the whole sequence. Differentiable. A collective, as is its gradient."""
    return _Gathered.apply(q_SBHD, k_SBGD, v_SBGD, edges, scale, group, local)  # type: ignore[no-any-return, no-untyped-call]


def _whole(k_SBGD: Tensor, v_SBGD: Tensor, group: ProcessGroup) -> tuple[Tensor, Tensor]:
    """k_BTGD and v_BTGD of the whole sequence, by one exchange."""
    kv_T2BGD = gather(torch.stack((k_SBGD, v_SBGD), 1), group)
    return kv_T2BGD[:, 0].transpose(0, 1), kv_T2BGD[:, 1].transpose(0, 1)


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q_SBHD: Tensor,
        k_SBGD: Tensor,
        v_SBGD: Tensor,
        edges: Edges,
        scale: float,
        group: ProcessGroup,
        local: Local,
    ) -> Tensor:
        early, late = gathered(edges, group.rank(), group.size())
        k_BTGD, v_BTGD = _whole(k_SBGD, v_SBGD, group)
        o_BSHD, lse_BHS = local.forward(q_SBHD.transpose(0, 1), k_BTGD, v_BTGD, early + late, scale, True)
        ctx.save_for_backward(q_SBHD, k_SBGD, v_SBGD, o_BSHD, lse_BHS)
        ctx.documents, ctx.scale, ctx.group, ctx.local = (early, late), scale, group, local
        return o_BSHD.transpose(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, go_SBHD: Tensor) -> tuple[Tensor | None, ...]:
        q_SBHD, k_SBGD, v_SBGD, o_BSHD, lse_BHS = ctx.saved_tensors
        k_BTGD, v_BTGD = _whole(k_SBGD, v_SBGD, ctx.group)
        wide = torch.promote_types(q_SBHD.dtype, torch.float32)
        q_BSHD, go_BSHD = q_SBHD.transpose(0, 1), go_SBHD.transpose(0, 1)
        gq_BSHD = torch.empty_like(q_BSHD)
        gkv_T2BGD = k_BTGD.new_zeros((k_BTGD.shape[1], 2, *k_SBGD.shape[1:]), dtype=wide)
        size = len(q_SBHD) // 2
        for place, documents in enumerate(ctx.documents):  # apart, for their keys overlap
            part = slice(place * size, (place + 1) * size)
            own = tuple((row, start - place * size, *rest) for row, start, *rest in documents)
            inputs = (go_BSHD[:, part], q_BSHD[:, part], k_BTGD, v_BTGD, o_BSHD[:, part], lse_BHS[..., part])
            gq_BSHD[:, part], gk_BTGD, gv_BTGD = ctx.local.backward(*inputs, own, ctx.scale, True)
            gkv_T2BGD[:, 0] += gk_BTGD.transpose(0, 1)
            gkv_T2BGD[:, 1] += gv_BTGD.transpose(0, 1)
            del gk_BTGD, gv_BTGD  # each as large as the whole sequence's keys, as is what is gathered
        del inputs, k_BTGD, v_BTGD
        gkv_S2BGD = scatter_sum(gkv_T2BGD, ctx.group).to(k_SBGD.dtype)
        return gq_BSHD.transpose(0, 1), gkv_S2BGD[:, 0], gkv_S2BGD[:, 1], None, None, None, None
