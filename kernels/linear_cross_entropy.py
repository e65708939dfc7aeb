"""The head and its loss in one operator that never holds the logits of all tokens.

At 92,544 entries a token's logits are 360 KB in fp32: of 256k tokens 88 GiB, more than any card has. Here they are made
for a piece of the tokens at a time, forward for the log-sum-exp and the label's logit, and again for the gradients
(8 N H V products instead of 6). Extra memory is a piece, and the weight's gradient in fp32: whatever N is.

N: tokens, H: hidden size, V: vocabulary entries of this rank (rank r of the group holds [r V, (r + 1) V)).
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, distributed
from torch.autograd.function import once_differentiable

IGNORED = -100  # a label that counts nothing, as in torch
# Logits of a piece, in fp32. Products of this size keep a device busy; smaller ones keep a CPU's memory cool.
_CPU_PIECE_BYTES, _DEVICE_PIECE_BYTES = 1 << 26, 1 << 28


def linear_cross_entropy(
    hidden_NH: Tensor,
    weight_VH: Tensor,
    labels_N: Tensor,
    *,
    z_loss: float = 0.0,
    group: distributed.ProcessGroup | None = None,
) -> Tensor:
    """lse - logit[label] + z_loss * lse^2 per token, in fp32 (float64 of float64), 0 where the label is IGNORED.

    lse is the log-sum-exp of all logits hidden @ weight^T (z-loss: Chowdhery et al. 2022, arXiv 2204.02311, section 5).
    Equal on all ranks of `group`. Differentiable once, in both; the gradient of `hidden` is this rank's part of a sum
    over the group, as that of any column-parallel product. Raises ValueError for a label outside of the vocabulary.
    """
    ranks = group.size() if group is not None else 1
    outside = (labels_N != IGNORED) & ((labels_N < 0) | (labels_N >= ranks * len(weight_VH)))
    if labels_N.is_cpu and bool(outside.any()):  # on a device the look would wait for it
        raise ValueError(f"label {int(labels_N[outside][0])} is outside of {ranks * len(weight_VH):,} entries")
    return _LinearCrossEntropy.apply(hidden_NH, weight_VH, labels_N, z_loss, group)  # type: ignore[no-any-return, no-untyped-call]


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _pieces(hidden_NH: Tensor, entries: int) -> Iterator[slice]:
    """Runs of tokens whose logits fit a piece."""
    piece_bytes = _CPU_PIECE_BYTES if hidden_NH.is_cpu else _DEVICE_PIECE_BYTES
    rows = max(1, piece_bytes // (4 * entries))
    for first in range(0, len(hidden_NH), rows):
        yield slice(first, first + rows)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_NH: Tensor,
        weight_VH: Tensor,
        labels_N: Tensor,
        z_loss: float,
        group: distributed.ProcessGroup | None,
    ) -> Tensor:
        entries, wide = len(weight_VH), _wide(hidden_NH.dtype)
        place_N = labels_N - (group.rank() * entries if group is not None else 0)
        mine_N = (place_N >= 0) & (place_N < entries)
        place_N = place_N.where(mine_N, 0)
        top_N, total_N, label_N = (torch.empty(len(labels_N), dtype=wide, device=labels_N.device) for _ in range(3))
        for piece in _pieces(hidden_NH, entries):
            logits_PV = (hidden_NH[piece] @ weight_VH.T).to(wide)
            label_N[piece] = logits_PV.gather(1, place_N[piece, None])[:, 0] * mine_N[piece]
            top_N[piece] = logits_PV.amax(-1)
            total_N[piece] = logits_PV.sub_(top_N[piece, None]).exp_().sum(-1)
        if group is not None and group.size() > 1:
            own_top_N = top_N.clone()
            distributed.all_reduce(top_N, distributed.ReduceOp.MAX, group)
            sums_2N = torch.stack((total_N * (own_top_N - top_N).exp(), label_N))
            distributed.all_reduce(sums_2N, distributed.ReduceOp.SUM, group)
            total_N, label_N = sums_2N.unbind()
        lse_N = total_N.log_().add_(top_N)
        counted_N = labels_N != IGNORED
        ctx.save_for_backward(hidden_NH, weight_VH, place_N, mine_N, counted_N, lse_N)
        ctx.z_loss = z_loss
        return (lse_N - label_N + z_loss * lse_N.square()).where(counted_N, 0.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        # d loss / d logit_v = softmax_v * (1 + 2 z lse) - [v is the label]
        hidden_NH, weight_VH, place_N, mine_N, counted_N, lse_N = ctx.saved_tensors
        wide = _wide(hidden_NH.dtype)
        grad_N = grad_N.to(wide) * counted_N
        share_N, hit_N = grad_N * (1 + 2 * ctx.z_loss * lse_N), grad_N * mine_N
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        dhidden_NH = torch.empty_like(hidden_NH) if wants_hidden else None
        # Sums over pieces are kept in fp32: each piece's own product is rounded once.
        dweight_VH = torch.zeros_like(weight_VH, dtype=wide) if wants_weight else None
        for piece in _pieces(hidden_NH, len(weight_VH)):
            slope_PV = (hidden_NH[piece] @ weight_VH.T).to(wide).sub_(lse_N[piece, None]).exp_()
            slope_PV.mul_(share_N[piece, None]).scatter_add_(1, place_N[piece, None], -hit_N[piece, None])
            slope_PV = slope_PV.to(hidden_NH.dtype)
            if dhidden_NH is not None:
                torch.mm(slope_PV, weight_VH, out=dhidden_NH[piece])
            if dweight_VH is not None and dweight_VH.dtype == slope_PV.dtype:
                dweight_VH.addmm_(slope_PV.T, hidden_NH[piece])
            elif dweight_VH is not None:
                dweight_VH += slope_PV.T @ hidden_NH[piece]
        return dhidden_NH, dweight_VH.to(weight_VH.dtype) if dweight_VH is not None else None, None, None, None
