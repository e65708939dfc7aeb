"""Keys and values pass round the ranks, and each attends to the block it holds (Ring Attention, arXiv 2310.01889).

S: tokens of this rank and of a block, B: rows, H: query heads, G: key and value heads, D: head size.
What a rank has of the softmax so far and what it finds in a block are merged by their log-sum-exps, in fp32 (in float64
for float64). The backward pass uses the merged o and lse, with which every block's gradient is exact by itself; the
gradients of a block travel with it, in fp32 too. While a block is computed the next one is on its way.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed import ProcessGroup

from trainwright.kernels.context_parallel.exchange import Passed
from trainwright.kernels.context_parallel.local import Local, merge
from trainwright.kernels.context_parallel.zigzag import Edges, block

_BLOCKS, _GRADIENTS = 0, 1  # tags: both are under way at once


def ring_attention(
    q_SBHD: Tensor, k_SBGD: Tensor, v_SBGD: Tensor, edges: Edges, scale: float, group: ProcessGroup | None, local: Local
) -> Tensor:
    """o_SBHD of this rank's queries over the whole sequence. Differentiable. A collective, as is its gradient.

    A `group` of None is a ring of one: this rank has the whole sequence.
    """
    return _Ring.apply(q_SBHD, k_SBGD, v_SBGD, edges, scale, group, local)  # type: ignore[no-any-return, no-untyped-call]


def _place(group: ProcessGroup | None) -> tuple[int, int]:
    return (0, 1) if group is None else (group.rank(), group.size())


class _Ring(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q_SBHD: Tensor,
        k_SBGD: Tensor,
        v_SBGD: Tensor,
        edges: Edges,
        scale: float,
        group: ProcessGroup | None,
        local: Local,
    ) -> Tensor:
        rank, ranks = _place(group)
        q_BSHD = q_SBHD.transpose(0, 1)
        kv_2SBGD = torch.stack((k_SBGD, v_SBGD))
        o_BSHD = lse_BHS = None
        for step in range(ranks):
            passed = Passed(kv_2SBGD, group, _BLOCKS) if group is not None and step + 1 < ranks else None
            part = block(edges, rank, (rank - step) % ranks, ranks)
            k_BSGD, v_BSGD = kv_2SBGD.transpose(1, 2)
            o, lse = local.forward(q_BSHD[:, part.first_query :], k_BSGD, v_BSGD, part.documents, scale, part.causal)
            if o_BSHD is None or lse_BHS is None:  # the rank's own block, in which every query sees itself
                wide = torch.promote_types(o.dtype, torch.float32)
                o_BSHD, lse_BHS = o.to(wide), lse
            else:
                merge(o_BSHD[:, part.first_query :], lse_BHS[..., part.first_query :], o, lse)
            if passed is not None:
                kv_2SBGD = passed.wait()
        assert o_BSHD is not None
        assert lse_BHS is not None
        o_SBHD = o_BSHD.to(q_SBHD.dtype).transpose(0, 1)
        ctx.save_for_backward(q_SBHD, k_SBGD, v_SBGD, o_SBHD, lse_BHS)
        ctx.edges, ctx.scale, ctx.group, ctx.local = edges, scale, group, local
        return o_SBHD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, go_SBHD: Tensor) -> tuple[Tensor | None, ...]:
        q_SBHD, k_SBGD, v_SBGD, o_SBHD, lse_BHS = ctx.saved_tensors
        group: ProcessGroup | None = ctx.group
        rank, ranks = _place(group)
        go_BSHD, q_BSHD, o_BSHD = (x.transpose(0, 1) for x in (go_SBHD, q_SBHD, o_SBHD))
        wide = torch.promote_types(q_SBHD.dtype, torch.float32)
        gq_BSHD = torch.zeros_like(q_BSHD, dtype=wide)
        kv_2SBGD = torch.stack((k_SBGD, v_SBGD))
        gradients: Passed | None = None
        gkv_2SBGD = None
        for step in range(ranks):
            passed = Passed(kv_2SBGD, group, _BLOCKS) if group is not None and step + 1 < ranks else None
            part = block(ctx.edges, rank, (rank - step) % ranks, ranks)
            k_BSGD, v_BSGD = kv_2SBGD.transpose(1, 2)
            own = slice(part.first_query, None)
            inputs = (go_BSHD[:, own], q_BSHD[:, own], k_BSGD, v_BSGD, o_BSHD[:, own], lse_BHS[..., own])
            gq, gk, gv = ctx.local.backward(*inputs, part.documents, ctx.scale, part.causal)
            gq_BSHD[:, own] += gq
            gkv_2SBGD = torch.stack((gk, gv)).transpose(1, 2).to(wide)
            if gradients is not None:
                gkv_2SBGD = gkv_2SBGD + gradients.wait()  # of the ranks that held this block before
            if group is not None:
                gradients = Passed(gkv_2SBGD, group, _GRADIENTS)  # after the last step: home
            if passed is not None:
                kv_2SBGD = passed.wait()
        if gradients is not None:
            gkv_2SBGD = gradients.wait()
        assert gkv_2SBGD is not None
        gk_SBGD, gv_SBGD = gkv_2SBGD.to(k_SBGD.dtype)
        return gq_BSHD.transpose(0, 1).to(q_SBHD.dtype), gk_SBGD, gv_SBGD, None, None, None, None
