"""Attention of one rank over documents, forward and backward, as context parallelism needs it: with its log-sum-exp.

B: rows, S: queries a row, T: keys a row, H: query heads, G: key and value heads, D: head size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from trainwright.kernels.context_parallel.zigzag import Documents
from trainwright.kernels.packing import FIELDS

_HALVES = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Local:
    """Both passes of attention over documents; a query sees no later key if `causal`, with both ends aligned.

    `forward(q_BSHD, k_BTGD, v_BTGD, documents, scale, causal) -> (o_BSHD, lse_BHS)`: zeros and -inf for queries of no
    document. No two documents share queries.
    `backward(go, q, k, v, o, lse, documents, scale, causal) -> (gq, gk, gv)`: `o` and `lse` may be those of a larger
    attention of which these keys are a part. No two documents share queries or keys.
    """

    forward: Callable[[Tensor, Tensor, Tensor, Documents, float, bool], tuple[Tensor, Tensor]]
    backward: Callable[
        [Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Documents, float, bool], tuple[Tensor, Tensor, Tensor]
    ]


def local_attention(
    name: Literal["reference", "sdpa", "portable", "hopper", "flash-attn"], dtype: torch.dtype, device: torch.device
) -> Local:
    """The local attention that goes with an implementation of `trainwright.kernels.attention`.

    Torch has no fused attention for fp32 on a GPU that gives the log-sum-exp: there the definition is computed.
    """
    if name == "portable":
        from trainwright.kernels.portable import operator as portable  # imports triton

        return _at_once(portable.attention_forward, portable.attention_backward, True)
    if name == "hopper":
        from trainwright.kernels.hopper import operator as hopper  # imports triton

        return _at_once(partial(hopper.attention_forward, gluon=False), hopper.attention_backward)
    if name == "reference" or (device.type != "cpu" and dtype not in _HALVES):
        return _by_document(_plain_forward, _plain_backward)
    if device.type == "cpu":
        return _by_document(_cpu_forward, _cpu_backward)
    return _by_document(_flash_forward, _flash_backward)


def _at_once(forward_all: Callable[..., Any], backward_all: Callable[..., Any], *options: bool) -> Local:
    """Kernels of ours, which take all documents in one call; `options` end the arguments of both passes."""

    def fields(documents: Documents) -> Tensor:
        return torch.tensor(documents, dtype=torch.int32).reshape(-1, FIELDS)

    def forward(
        q: Tensor, k: Tensor, v: Tensor, documents: Documents, scale: float, causal: bool
    ) -> tuple[Tensor, Tensor]:
        o, lse = forward_all(q, k, v, fields(documents), scale, causal, None, *options)
        return o, lse

    def backward(
        go: Tensor, q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse: Tensor,
        documents: Documents, scale: float, causal: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        gq, gk, gv = backward_all(go, None, q, k, v, o, lse, fields(documents), scale, causal, None, *options)
        return gq, gk, gv

    return Local(forward, backward)


def _by_document(
    forward_one: Callable[..., tuple[Tensor, Tensor]], backward_one: Callable[..., tuple[Tensor, Tensor, Tensor]]
) -> Local:
    """A call a document: each takes tensors of one row, [1, its tokens, heads, D] and lse_1HS."""

    def forward(
        q_BSHD: Tensor, k_BTGD: Tensor, v_BTGD: Tensor, documents: Documents, scale: float, causal: bool
    ) -> tuple[Tensor, Tensor]:
        rows, queries, heads, _ = q_BSHD.shape
        wide = torch.promote_types(q_BSHD.dtype, torch.float32)
        o_BSHD = torch.zeros_like(q_BSHD)
        lse_BHS = q_BSHD.new_full((rows, heads, queries), float("-inf"), dtype=wide)
        for row, query, key in _places(documents):
            o, lse = forward_one(q_BSHD[row, query], k_BTGD[row, key], v_BTGD[row, key], scale, causal)
            o_BSHD[row, query] = o
            lse_BHS[row, :, query] = lse
        return o_BSHD, lse_BHS

    def backward(
        go_BSHD: Tensor, q_BSHD: Tensor, k_BTGD: Tensor, v_BTGD: Tensor, o_BSHD: Tensor, lse_BHS: Tensor,
        documents: Documents, scale: float, causal: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        gq_BSHD, gk_BTGD, gv_BTGD = (torch.zeros_like(x) for x in (q_BSHD, k_BTGD, v_BTGD))
        for row, query, key in _places(documents):
            gq_BSHD[row, query], gk_BTGD[row, key], gv_BTGD[row, key] = backward_one(
                go_BSHD[row, query].contiguous(), q_BSHD[row, query], k_BTGD[row, key], v_BTGD[row, key],
                o_BSHD[row, query], lse_BHS[row, :, query].contiguous(), scale, causal,
            )  # fmt: skip
        return gq_BSHD, gk_BTGD, gv_BTGD

    return Local(forward, backward)


def _places(documents: Documents) -> list[tuple[slice, slice, slice]]:
    """By document the row, the queries and the keys."""
    return [(slice(row, row + 1), slice(q, q + size), slice(k, k + keys)) for row, q, size, k, keys in documents]


def merge(o_BSHD: Tensor, lse_BHS: Tensor, part_BSHD: Tensor, part_lse_BHS: Tensor) -> None:
    """o and lse are those of both sets of keys together, in place. Every query must have seen a key before."""
    merged_BHS = torch.logaddexp(lse_BHS, part_lse_BHS)
    before_BSH1, now_BSH1 = ((x - merged_BHS).exp().transpose(1, 2)[..., None] for x in (lse_BHS, part_lse_BHS))
    o_BSHD.mul_(before_BSH1).add_(now_BSH1 * part_BSHD)
    lse_BHS.copy_(merged_BHS)


# --- the definition --------------------------------------------------------------------------------------------------


def _plain_scores(q_1SHD: Tensor, k_1TGD: Tensor, scale: float, causal: bool) -> Tensor:
    """scores_GRST in at least fp32, R the query heads of a key head; -inf where a query does not see a key."""
    scores = scale * torch.einsum("sgrd,tgd->grst", *_grouped(q_1SHD, k_1TGD))
    queries, keys = scores.shape[2:]
    hidden_ST = torch.ones(queries, keys, dtype=torch.bool, device=scores.device).triu(keys - queries + 1)
    return scores.masked_fill(hidden_ST, float("-inf")) if causal else scores


def _grouped(q_1SHD: Tensor, k_1TGD: Tensor) -> tuple[Tensor, Tensor]:
    """q_SGRD and k_TGD in at least fp32."""
    wide = torch.promote_types(q_1SHD.dtype, torch.float32)
    _, queries, _, size = q_1SHD.shape
    return q_1SHD.reshape(queries, k_1TGD.shape[2], -1, size).to(wide), k_1TGD[0].to(wide)


def _plain_forward(q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool) -> tuple[Tensor, Tensor]:
    scores_GRST = _plain_scores(q, k, scale, causal)
    lse_GRS = scores_GRST.logsumexp(-1)
    weights_GRST = (scores_GRST - lse_GRS[..., None]).exp()
    o_SGRD = torch.einsum("grst,tgd->sgrd", weights_GRST, v[0].to(weights_GRST.dtype))
    return o_SGRD.reshape(q.shape).to(q.dtype), lse_GRS.reshape(1, q.shape[2], -1)


def _plain_backward(
    go: Tensor, q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse_1HS: Tensor, scale: float, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    scores_GRST = _plain_scores(q, k, scale, causal)
    (q_SGRD, k_TGD), (go_SGRD, v_TGD) = _grouped(q, k), _grouped(go, v)
    o_SGRD, _ = _grouped(o, v)
    weights_GRST = (scores_GRST - lse_1HS.reshape(*scores_GRST.shape[:3], 1)).exp()
    gv_TGD = torch.einsum("grst,sgrd->tgd", weights_GRST, go_SGRD)
    delta_GRS1 = torch.einsum("sgrd,sgrd->grs", o_SGRD, go_SGRD)[..., None]
    slope_GRST = scale * weights_GRST * (torch.einsum("sgrd,tgd->grst", go_SGRD, v_TGD) - delta_GRS1)
    gq_SGRD = torch.einsum("grst,tgd->sgrd", slope_GRST, k_TGD)
    gk_TGD = torch.einsum("grst,sgrd->tgd", slope_GRST, q_SGRD)
    return gq_SGRD.reshape(q.shape).to(q.dtype), gk_TGD[None].to(k.dtype), gv_TGD[None].to(v.dtype)


# --- torch's fused kernels -------------------------------------------------------------------------------------------


def _cpu_forward(q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool) -> tuple[Tensor, Tensor]:
    """Torch's causal mask on a CPU is aligned to the first key: keys that all queries see go by themselves."""
    before = k.shape[1] - q.shape[1]
    if not causal or before == 0:
        heads_first = (x.transpose(1, 2) for x in (q, k, v))
        o_1HSD, lse_1HS = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            *heads_first, 0.0, causal, scale=scale
        )
        return o_1HSD.transpose(1, 2), lse_1HS
    o, lse = _cpu_forward(q, k[:, before:], v[:, before:], scale, True)
    o = o.to(lse.dtype)
    merge(o, lse, *_cpu_forward(q, k[:, :before], v[:, :before], scale, False))
    return o.to(q.dtype), lse


def _cpu_backward(
    go: Tensor, q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse_1HS: Tensor, scale: float, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    before = k.shape[1] - q.shape[1]
    if not causal or before == 0:
        heads_first = (x.transpose(1, 2) for x in (go, q, k, v, o))
        gq, gk, gv = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            *heads_first, lse_1HS, 0.0, causal, scale=scale
        )
        return gq.transpose(1, 2), gk.transpose(1, 2), gv.transpose(1, 2)
    late = _cpu_backward(go, q, k[:, before:], v[:, before:], o, lse_1HS, scale, True)
    early = _cpu_backward(go, q, k[:, :before], v[:, :before], o, lse_1HS, scale, False)
    return early[0] + late[0], torch.cat((early[1], late[1]), 1), torch.cat((early[2], late[2]), 1)


def _flash_forward(q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool) -> tuple[Tensor, Tensor]:
    """FlashAttention 2 as torch has it, below scaled_dot_product_attention: its mask is aligned to the last key."""
    o, lse, *_ = torch.ops.aten._flash_attention_forward(
        q, k, v, None, None, q.shape[1], k.shape[1], 0.0, causal, False, scale=scale
    )
    return o, lse


def _flash_backward(
    go: Tensor, q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse_1HS: Tensor, scale: float, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    unused = torch.empty(0, dtype=torch.int64, device=q.device)  # the state of dropout, which there is none of
    gq, gk, gv = torch.ops.aten._flash_attention_backward(
        go, q, k, v, o, lse_1HS, None, None, q.shape[1], k.shape[1], 0.0, causal, unused, unused, scale=scale
    )
    return gq, gk, gv
