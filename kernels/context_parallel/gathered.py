"""Every rank gathers all keys and values, then attends with its own queries in one call (Llama 3, section 3.3.2).

S: tokens of this rank, T: of the whole sequence, B: rows, H: query heads, G: key and value heads, D: head size.
Kept for the backward pass: the rank's own q, k, v, o and lse. It gathers keys and values again, and their gradients are
summed and sent in fp32 (in float64 for float64). On a GPU one half of the heads is computed while the other is sent.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed import ProcessGroup

from trainwright.kernels.context_parallel.exchange import Gathering, Summing
from trainwright.kernels.context_parallel.local import Local
from trainwright.kernels.context_parallel.zigzag import Documents, Edges, gathered


def gathered_attention(
    q_SBHD: Tensor, k_SBGD: Tensor, v_SBGD: Tensor, edges: Edges, scale: float, group: ProcessGroup, local: Local
) -> Tensor:
    """o_SBHD of this rank's queries over the whole sequence. Differentiable. A collective, as is its gradient."""
    return _Gathered.apply(q_SBHD, k_SBGD, v_SBGD, edges, scale, group, local)  # type: ignore[no-any-return, no-untyped-call]


def _parts(q_SBHD: Tensor, groups: int) -> list[tuple[slice, slice]]:
    """Query heads, and the key and value heads that they share, of each part that is sent by itself."""
    count = 1 if _on_cpu(q_SBHD) or groups % 2 else 2  # a CPU has no one else to send
    heads = q_SBHD.shape[2] // count, groups // count
    return [(slice(p * heads[0], (p + 1) * heads[0]), slice(p * heads[1], (p + 1) * heads[1])) for p in range(count)]


def _on_cpu(q_SBHD: Tensor) -> bool:
    return q_SBHD.is_cpu


def _under_way(k_SBGD: Tensor, v_SBGD: Tensor, keys: slice, group: ProcessGroup) -> Gathering:
    return Gathering(torch.stack((k_SBGD[:, :, keys], v_SBGD[:, :, keys]), 1), group)


def _arrived(coming: Gathering) -> tuple[Tensor, Tensor]:
    """k_BTGD and v_BTGD of the whole sequence."""
    kv_T2BGD = coming.wait()
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
        q_BSHD = q_SBHD.transpose(0, 1)
        parts = _parts(q_SBHD, k_SBGD.shape[2])
        coming = [_under_way(k_SBGD, v_SBGD, keys, group) for _, keys in parts]
        found = [
            local.forward(q_BSHD[:, :, heads], *_arrived(each), early + late, scale, True)
            for (heads, _), each in zip(parts, coming, strict=True)
        ]
        o_BSHD, lse_BHS = found[0]
        if len(found) > 1:
            o_BSHD, lse_BHS = torch.cat([o for o, _ in found], 2), torch.cat([lse for _, lse in found], 1)
        ctx.save_for_backward(q_SBHD, k_SBGD, v_SBGD, o_BSHD, lse_BHS)
        ctx.documents, ctx.scale, ctx.group, ctx.local = (early, late), scale, group, local
        return o_BSHD.transpose(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, go_SBHD: Tensor) -> tuple[Tensor | None, ...]:
        q_SBHD, k_SBGD, v_SBGD, o_BSHD, lse_BHS = ctx.saved_tensors
        q_BSHD, go_BSHD = q_SBHD.transpose(0, 1), go_SBHD.transpose(0, 1)
        parts = _parts(q_SBHD, k_SBGD.shape[2])
        coming = [_under_way(k_SBGD, v_SBGD, keys, ctx.group) for _, keys in parts]
        gq_BSHD = torch.empty_like(q_BSHD)
        going = []
        for (heads, _), each in zip(parts, coming, strict=True):
            inputs = (go_BSHD[:, :, heads], q_BSHD[:, :, heads], o_BSHD[:, :, heads], lse_BHS[:, heads])
            gkv_T2BGD = _backward(ctx, *inputs, *_arrived(each), gq_BSHD[:, :, heads])
            going.append(Summing(gkv_T2BGD, ctx.group))
            del gkv_T2BGD
        gkv_S2BGD = torch.cat([each.wait().to(k_SBGD.dtype) for each in going], 3)
        return gq_BSHD.transpose(0, 1), gkv_S2BGD[:, 0], gkv_S2BGD[:, 1], None, None, None, None


def _backward(
    ctx: Any, go_BSHD: Tensor, q_BSHD: Tensor, o_BSHD: Tensor, lse_BHS: Tensor, k_BTGD: Tensor, v_BTGD: Tensor,
    gq_BSHD: Tensor,
) -> Tensor:  # fmt: skip
    """Gradients of the whole sequence's keys and values, [T, 2, B, G, D] in fp32; those of the queries in `gq_BSHD`."""
    rows, tokens, groups, head_size = k_BTGD.shape
    wide = torch.promote_types(q_BSHD.dtype, torch.float32)
    gkv_T2BGD = k_BTGD.new_zeros((tokens, 2, rows, groups, head_size), dtype=wide)
    size = q_BSHD.shape[1] // 2
    for place, documents in enumerate(ctx.documents):  # apart, for their keys overlap
        part = slice(place * size, (place + 1) * size)
        own: Documents = tuple((row, start - place * size, *rest) for row, start, *rest in documents)
        inputs = (go_BSHD[:, part], q_BSHD[:, part], k_BTGD, v_BTGD, o_BSHD[:, part], lse_BHS[..., part])
        gq_BSHD[:, part], gk_BTGD, gv_BTGD = ctx.local.backward(*inputs, own, ctx.scale, True)
        gkv_T2BGD[:, 0] += gk_BTGD.transpose(0, 1)
        gkv_T2BGD[:, 1] += gv_BTGD.transpose(0, 1)
        del gk_BTGD, gv_BTGD  # each as large as the whole sequence's keys, as is what is gathered
    return gkv_T2BGD
