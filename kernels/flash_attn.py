"""Causal attention over packed documents by the `flash-attn` package, where it is installed.

Shapes and edges: see `trainwright.kernels.attention`. N: tokens of all rows.
"""

import importlib.util

import torch
from torch import Tensor

from trainwright.kernels.reference import packing_of

HEAD_SIZE = 256  # the largest
DTYPES = (torch.bfloat16, torch.float16)


def is_installed() -> bool:
    return importlib.util.find_spec("flash_attn") is not None


def flash_attention(
    q_SBHD: Tensor, k_TBGD: Tensor, v_TBGD: Tensor, edges_BE: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """softmax(scale q k^T) v inside each document; `scale` is 1/sqrt(D) if None. Differentiable, deterministically.

    Raises ValueError for several documents in a sequence while decoding (T > S).
    """
    from flash_attn import flash_attn_varlen_func

    queries, rows, heads, size = q_SBHD.shape
    keys = len(k_TBGD)
    packing = packing_of(edges_BE, rows, queries, keys)
    if packing.covers(rows, queries, keys) != (True, True):
        raise ValueError("attention over several documents in a sequence needs as many queries as keys")
    q_NHD, k_NGD, v_NGD = (x.transpose(0, 1).reshape(-1, x.shape[2], size) for x in (q_SBHD, k_TBGD, v_TBGD))
    lengths_2N = packing.documents_N5[:, (2, 4)].T
    edges_2N = torch.nn.functional.pad(lengths_2N.cumsum(1, dtype=torch.int32), (1, 0)).to(q_SBHD.device)
    o_NHD: Tensor = flash_attn_varlen_func(
        q_NHD,
        k_NGD,
        v_NGD,
        edges_2N[0],
        edges_2N[1],
        int(lengths_2N[0].max()),
        int(lengths_2N[1].max()),
        softmax_scale=scale,
        causal=True,
        deterministic=True,
    )
    return o_NHD.view(rows, queries, heads, size).transpose(0, 1)
