"""Attention of one rank over documents, forward and backward, as context parallelism needs it: with its log-sum-exp.

B: rows, S: queries a row, T: keys a row, H: query heads, G: key and value heads, D: head size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainwright.kernels.context_parallel.zigzag import Documents
from trainwright.kernels.packing import FIELDS

Forward = Callable[[Tensor, Tensor, Tensor, Documents, float, bool], tuple[Tensor, Tensor]]
Backward = Callable[
    [Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Documents, float, bool], tuple[Tensor, Tensor, Tensor]
]


@dataclass(frozen=True)
class Local:
    """`forward(q_BSHD, k_BTGD, v_BTGD, documents, scale, causal) -> (o_BSHD, lse_BHS)`: zeros and -inf for queries
    outside of the documents. `backward(go, q, k, v, o, lse, documents, scale, causal) -> (gq, gk, gv)`: `o` and `lse`
    may be those of a larger attention of which these keys are a part. No two documents share queries; for `backward`,
    none share keys either.
    """

    name: str
    forward: Forward
    backward: Backward


def local_attention(device: torch.device) -> Local:
    """The Triton kernels on a GPU, torch's fused attention on a CPU."""
    if device.type == "cpu":
        return Local("sdpa", _torch_forward, _torch_backward)
    from trainwright.kernels.portable.operator import attention_backward, attention_forward

    def forward(
        q: Tensor, k: Tensor, v: Tensor, documents: Documents, scale: float, causal: bool
    ) -> tuple[Tensor, Tensor]:
        o, lse = attention_forward(q, k, v, _fields(documents), scale, causal, None, True)
        return o, lse

    def backward(
        go: Tensor, q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse: Tensor,
        documents: Documents, scale: float, causal: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        gq, gk, gv = attention_backward(go, None, q, k, v, o, lse, _fields(documents), scale, causal, None, True)
        return gq, gk, gv

    return Local("portable", forward, backward)


def _fields(documents: Documents) -> Tensor:
    return torch.tensor(documents, dtype=torch.int32).reshape(-1, FIELDS)


def _torch_forward(
    q_BSHD: Tensor, k_BTGD: Tensor, v_BTGD: Tensor, documents: Documents, scale: float, causal: bool
) -> tuple[Tensor, Tensor]:
    """A fused call a document; every dtype that torch's CPU kernel knows, float64 included."""
    rows, queries, heads, _ = q_BSHD.shape
    wide = torch.promote_types(q_BSHD.dtype, torch.float32)
    o_BSHD = torch.zeros_like(q_BSHD)
    lse_BHS = q_BSHD.new_full((rows, heads, queries), float("-inf"), dtype=wide)
    for document in documents:
        q, k, v = _document(q_BSHD, k_BTGD, v_BTGD, document=document)
        o, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q, k, v, 0.0, **_mask(q, k, causal), scale=scale
        )
        row, start, length, _, _ = document
        o_BSHD[row, start : start + length] = o[0].transpose(0, 1)
        lse_BHS[row, :, start : start + length] = lse[0]
    return o_BSHD, lse_BHS


def _torch_backward(
    go_BSHD: Tensor, q_BSHD: Tensor, k_BTGD: Tensor, v_BTGD: Tensor, o_BSHD: Tensor, lse_BHS: Tensor,
    documents: Documents, scale: float, causal: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    gq_BSHD, gk_BTGD, gv_BTGD = (torch.zeros_like(x) for x in (q_BSHD, k_BTGD, v_BTGD))
    for document in documents:
        q, k, v = _document(q_BSHD, k_BTGD, v_BTGD, document=document)
        row, start, length, k_start, k_length = document
        queries, keys = slice(start, start + length), slice(k_start, k_start + k_length)
        go, o = (x[row, queries].transpose(0, 1)[None] for x in (go_BSHD, o_BSHD))
        # The kernel reads lse as if it were dense.
        lse = lse_BHS[row, :, queries].contiguous()[None]
        gq, gk, gv = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            go, q, k, v, o, lse, 0.0, **_mask(q, k, causal), scale=scale
        )
        gq_BSHD[row, queries] = gq[0].transpose(0, 1)
        gk_BTGD[row, keys] = gk[0].transpose(0, 1)
        gv_BTGD[row, keys] = gv[0].transpose(0, 1)
    return gq_BSHD, gk_BTGD, gv_BTGD


def _document(
    q_BSHD: Tensor, k_BTGD: Tensor, v_BTGD: Tensor, *, document: tuple[int, int, int, int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Its queries, keys and values, heads first, as a batch of one."""
    row, q_start, q_length, k_start, k_length = document
    return (
        q_BSHD[row, q_start : q_start + q_length].transpose(0, 1)[None],
        k_BTGD[row, k_start : k_start + k_length].transpose(0, 1)[None],
        v_BTGD[row, k_start : k_start + k_length].transpose(0, 1)[None],
    )


def _mask(q_BHSD: Tensor, k_BGTD: Tensor, causal: bool) -> dict[str, Any]:
    """How torch is told: its own causal mask is aligned to the first key, ours to the last."""
    queries, keys = q_BHSD.shape[2], k_BGTD.shape[2]
    if not causal or queries == keys:
        return {"is_causal": causal}
    hidden = torch.full((queries, keys), float("-inf"), dtype=q_BHSD.dtype, device=q_BHSD.device)
    return {"is_causal": False, "attn_mask": hidden.triu(keys - queries + 1)}
