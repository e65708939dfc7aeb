"""Causal attention over packed documents by torch's fused scaled_dot_product_attention.

Shapes and edges: see `trainwright.kernels.attention`. N: all tokens of the batch, P: slots of the padded documents,
F: features of a token (heads times size).

A fused call per document is leak-proof but slow when documents are short (on a CPU, four times slower at 128 tokens).
So documents of similar length are copied into one batch, padded with zeros at the end: the causal mask alone already
hides the padding from every real token, and no two documents share a row.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def sdpa_attention(
    q_SBHD: Tensor, k_TBGD: Tensor, v_TBGD: Tensor, edges_BE: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """softmax(scale q k^T) v inside each document; `scale` is 1/sqrt(D) if None. Differentiable.

    Raises ValueError for several documents in a sequence while decoding (T > S).
    """
    length, batch, heads, size = q_SBHD.shape
    packing = None if edges_BE is None else _packing(_rows(edges_BE), q_SBHD.device)
    if packing is None:
        q, k, v = (x.permute(1, 2, 0, 3) for x in (q_SBHD, k_TBGD, v_TBGD))
        return _attend(q, k, v, scale).permute(2, 0, 1, 3)
    if len(k_TBGD) != length:
        raise ValueError("attention over several documents in a sequence needs as many queries as keys")
    q_PF, k_PF, v_PF = (
        _Scatter.apply(x.reshape(length * batch, -1), packing.slots_N, packing.size)  # type: ignore[no-untyped-call]
        for x in (q_SBHD, k_TBGD, v_TBGD)
    )
    outputs = []
    for first, documents, longest in packing.groups:
        part = slice(first, first + documents * longest)
        q, k, v = (x[part].view(documents, longest, -1, size).transpose(1, 2) for x in (q_PF, k_PF, v_PF))
        outputs.append(_attend(q, k, v, scale).transpose(1, 2).reshape(documents * longest, heads * size))
    o_NF = _Gather.apply(torch.cat(outputs), packing.slots_N)  # type: ignore[no-untyped-call]
    return o_NF.view(length, batch, heads, size)  # type: ignore[no-any-return]


def _attend(q_BHSD: Tensor, k_BGTD: Tensor, v_BGTD: Tensor, scale: float | None) -> Tensor:
    """o_BHSD of causal attention where the S queries are the last of the T positions."""
    queries, keys = q_BHSD.shape[2], k_BGTD.shape[2]
    mask_ST = None
    if 1 < queries < keys:
        mask_ST = torch.ones(queries, keys, dtype=torch.bool, device=q_BHSD.device).tril(keys - queries)
    return F.scaled_dot_product_attention(
        q_BHSD,
        k_BGTD,
        v_BGTD,
        attn_mask=mask_ST,
        is_causal=queries == keys,
        scale=scale,
        enable_gqa=q_BHSD.shape[1] != k_BGTD.shape[1],
    )


@dataclass(frozen=True)
class _Packing:
    """Where each token lies among the padded documents."""

    slots_N: Tensor
    size: int
    groups: tuple[tuple[int, int, int], ...]  # first slot, documents, padded length


def _rows(edges_BE: Tensor) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(row) for row in edges_BE.tolist())


@lru_cache(maxsize=64)  # the layers of a model ask for the same micro-batch one after the other
def _packing(edges: tuple[tuple[int, ...], ...], device: torch.device) -> _Packing | None:
    """The packing of these documents, or None if each sequence is a single one."""
    batch, length = len(edges), edges[0][-1]
    documents = [
        (stop - start, b, start) for b, row in enumerate(edges) for start, stop in pairwise(row) if stop > start
    ]
    if len(documents) == batch:
        return None
    # Lengths within a factor of two share a call: at most log2(length) calls, at most 4 times the work of each.
    documents.sort(key=lambda document: (document[0].bit_length(), document[1:]))
    slots_SB = torch.empty(length, batch, dtype=torch.long)
    groups: list[tuple[int, int, int]] = []
    first = 0
    while documents:
        group = [d for d in documents if d[0].bit_length() == documents[0][0].bit_length()]
        documents = documents[len(group) :]
        longest = max(size for size, _, _ in group)
        for index, (size, b, start) in enumerate(group):
            slots_SB[start : start + size, b] = torch.arange(size) + (first + index * longest)
        groups.append((first, len(group), longest))
        first += len(group) * longest
    return _Packing(slots_SB.flatten().to(device), first, tuple(groups))


class _Scatter(torch.autograd.Function):
    """Rows to their slots, zeros elsewhere. Its adjoint is `_Gather`: both are plain copies of rows."""

    @staticmethod
    def forward(ctx: Any, x_NF: Tensor, slots_N: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(slots_N)
        return x_NF.new_zeros(size, x_NF.shape[1]).index_copy_(0, slots_N, x_NF)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_PF: Tensor) -> tuple[Tensor, None, None]:
        (slots_N,) = ctx.saved_tensors
        return grad_PF.index_select(0, slots_N), None, None


class _Gather(torch.autograd.Function):
    """Rows from their slots."""

    @staticmethod
    def forward(ctx: Any, x_PF: Tensor, slots_N: Tensor) -> Tensor:
        ctx.save_for_backward(slots_N)
        ctx.size = len(x_PF)
        return x_PF.index_select(0, slots_N)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NF: Tensor) -> tuple[Tensor, None]:
        (slots_N,) = ctx.saved_tensors
        return grad_NF.new_zeros(ctx.size, grad_NF.shape[1]).index_copy_(0, slots_N, grad_NF), None
