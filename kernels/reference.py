"""Attention over packed documents written as its definition: the yardstick of every other implementation.

Computes in the dtype it is given, float64 included. Shapes: see `trainwright.kernels.attention` and `.packing`.
"""

import torch
from torch import Tensor

from trainwright.kernels.packing import Packing


def reference_attention(
    q_SBHD: Tensor, k_TBGD: Tensor, v_TBGD: Tensor, edges_BE: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """softmax(scale q k^T) v inside each document; `scale` is 1/sqrt(D) if None. Differentiable."""
    q_BSHD, k_BTGD, v_BTGD = (x.transpose(0, 1) for x in (q_SBHD, k_TBGD, v_TBGD))
    packing = packing_of(edges_BE, len(q_BSHD), q_BSHD.shape[1], k_BTGD.shape[1])
    o_BSHD, _ = attend(q_BSHD, k_BTGD, v_BTGD, packing, scale=scale)
    return o_BSHD.transpose(0, 1)


def packing_of(edges_BE: Tensor | None, rows: int, queries: int, keys: int) -> Packing:
    """The documents between edges, which end at the last key; one a row without edges."""
    if edges_BE is None:
        return Packing.whole_rows(rows, queries, keys)
    return Packing.from_edges(tuple(tuple(row) for row in edges_BE.tolist()), queries)


def attend(
    q_BSHD: Tensor,
    k_BTGD: Tensor,
    v_BTGD: Tensor,
    packing: Packing,
    *,
    scale: float | None = None,
    causal: bool = True,
    window: int | None = None,
) -> tuple[Tensor, Tensor]:
    """o_BSHD, and lse_BHS: the natural log-sum-exp of each query's scores, -inf where it sees no key. Differentiable.

    Queries are aligned to the end of the keys of their document. A query sees no later key if `causal`, and of the
    earlier ones the nearest `window`, itself included; all if None. One that sees none or lies in no document gives 0.
    """
    rows, queries, heads, size = q_BSHD.shape
    scale = size**-0.5 if scale is None else scale
    repeat = heads // k_BTGD.shape[2]
    o_BSHD = q_BSHD.new_zeros(q_BSHD.shape)
    lse_BHS = q_BSHD.new_full((rows, heads, queries), float("-inf"))
    for row, q_start, q_length, k_start, k_length in packing.documents_N5.tolist():
        q_SHD = q_BSHD[row, q_start : q_start + q_length]
        k_THD = k_BTGD[row, k_start : k_start + k_length].repeat_interleave(repeat, dim=1)
        v_THD = v_BTGD[row, k_start : k_start + k_length].repeat_interleave(repeat, dim=1)
        at_S = torch.arange(q_length, device=q_BSHD.device)[:, None] + (k_length - q_length)
        at_T = torch.arange(k_length, device=q_BSHD.device)[None, :]
        hidden_ST = torch.zeros(q_length, k_length, dtype=torch.bool, device=q_BSHD.device)
        if causal:
            hidden_ST = hidden_ST | (at_T > at_S)
        if window is not None:
            hidden_ST = hidden_ST | (at_T <= at_S - window)
        blind_S = hidden_ST.all(1)
        scores_HST = (scale * torch.einsum("shd,thd->hst", q_SHD, k_THD)).masked_fill(hidden_ST, float("-inf"))
        # A row of nothing but -inf has no softmax: it is computed on zeros and struck out.
        weights_HST = scores_HST.masked_fill(blind_S[:, None], 0.0).softmax(-1).masked_fill(blind_S[:, None], 0.0)
        place = (torch.tensor(row), torch.arange(q_start, q_start + q_length))
        o_BSHD = o_BSHD.index_put(place, torch.einsum("hst,thd->shd", weights_HST, v_THD))
        lse_HS = scores_HST.masked_fill(blind_S[:, None], 0.0).logsumexp(-1).masked_fill(blind_S, float("-inf"))
        lse_BHS = lse_BHS.index_put((place[0], torch.arange(heads)[:, None], place[1][None, :]), lse_HS)
    return o_BSHD, lse_BHS
