"""Causal attention over packed documents, written as its definition: the yardstick of every other implementation.

Shapes and edges: see `trainwright.kernels.attention`. Computes in the dtype it is given, float64 included.
"""

from itertools import pairwise

import torch
from torch import Tensor


def reference_attention(
    q_SBHD: Tensor, k_TBGD: Tensor, v_TBGD: Tensor, edges_BE: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """softmax(scale q k^T) v inside each document; `scale` is 1/sqrt(D) if None. Differentiable."""
    queries, batch, heads, size = q_SBHD.shape
    keys, groups = k_TBGD.shape[0], k_TBGD.shape[2]
    scale = size**-0.5 if scale is None else scale
    edges = [[0, keys]] * batch if edges_BE is None else edges_BE.tolist()
    k_TBHD = k_TBGD.repeat_interleave(heads // groups, dim=2)
    v_TBHD = v_TBGD.repeat_interleave(heads // groups, dim=2)
    sequences = []
    for b in range(batch):
        documents = []
        for start, stop in pairwise(edges[b]):
            first = max(start, keys - queries)  # the first position of the document that is a query
            if first >= stop:
                continue
            q_SHD = q_SBHD[first - (keys - queries) : stop - (keys - queries), b]
            scores_HST = scale * torch.einsum("shd,thd->hst", q_SHD, k_TBHD[start:stop, b])
            at_S = torch.arange(first, stop, device=q_SBHD.device)
            at_T = torch.arange(start, stop, device=q_SBHD.device)
            scores_HST = scores_HST.masked_fill(at_T[None, :] > at_S[:, None], float("-inf"))
            documents.append(torch.einsum("hst,thd->shd", scores_HST.softmax(-1), v_TBHD[start:stop, b]))
        sequences.append(torch.cat(documents))
    return torch.stack(sequences, dim=1)
