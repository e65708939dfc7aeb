"""The head and its loss in one operator that never holds the logits of all tokens.

At 92,544 entries a token's logits are 360 KB in fp32: of 256k tokens 88 GiB, more than any card has. Here they are made
for a piece of the tokens at a time, forward for the log-sum-exp and the label's logit, and again for the gradients
(8 N H V operations instead of 6). Extra memory is a piece, and the weight's gradient in fp32: whatever N is.

The products are torch's. What is done to a piece of logits between them is torch's here, and in Triton in
`kernels.portable.linear_cross_entropy`.

N: tokens, H: hidden size, V: vocabulary entries of this rank (rank r of the group holds [r V, (r + 1) V)), P: tokens of
a piece, R: tokens of a run.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed
from torch.autograd.function import once_differentiable

IGNORED = -100  # a label that counts nothing, as in torch
# Logits of a piece, in fp32, at least. A piece has as many tokens as the hidden size or more: each one reads the weight
# and adds to its gradient, which so many products outweigh.
_CPU_PIECE_BYTES, _DEVICE_PIECE_BYTES = 1 << 26, 1 << 28
# What is done to logits is done to runs of a piece's tokens, in an fp32 copy: on a CPU while they lie in the cache.
_CPU_RUN_BYTES, _DEVICE_RUN_BYTES = 1 << 21, 1 << 27


@dataclass(frozen=True)
class Passes:
    """What is done to the logits of a piece. `place_P` is the label's column, -1 where this rank does not hold it."""

    # (logits_PV, place_P) -> lse_P, label_P: the log-sum-exp, and the label's logit, 0 without one; in fp32 or wider
    statistics: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    # (logits_PV, place_P, lse_P, grad_P, z_loss): the logits became their gradient for `grad_P` of each token's loss
    to_gradient: Callable[[Tensor, Tensor, Tensor, Tensor, float], None]


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
    return in_pieces(_TORCH, hidden_NH, weight_VH, labels_N, z_loss, group)


def in_pieces(
    passes: Passes,
    hidden_NH: Tensor,
    weight_VH: Tensor,
    labels_N: Tensor,
    z_loss: float,
    group: distributed.ProcessGroup | None,
) -> Tensor:
    """`linear_cross_entropy` by these passes."""
    _check(labels_N, len(weight_VH) * (group.size() if group is not None else 1))
    return _LinearCrossEntropy.apply(passes, hidden_NH, weight_VH, labels_N, z_loss, group)  # type: ignore[no-any-return, no-untyped-call]


def _check(labels_N: Tensor, entries: int) -> None:
    outside = (labels_N != IGNORED) & ((labels_N < 0) | (labels_N >= entries))
    if labels_N.is_cpu and bool(outside.any()):  # on a device the look would wait for it
        raise ValueError(f"label {int(labels_N[outside][0])} is outside of {entries:,} entries")


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _on_cpu(hidden_NH: Tensor) -> bool:
    return hidden_NH.is_cpu


def _logits(hidden_NH: Tensor, weight_VH: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Pieces of the tokens, and their logits in the dtype of the product; the next piece's overwrite them."""
    entries, (tokens, hidden) = len(weight_VH), hidden_NH.shape
    piece_bytes = _CPU_PIECE_BYTES if _on_cpu(hidden_NH) else _DEVICE_PIECE_BYTES
    rows = max(1, min(tokens, max(hidden, piece_bytes // (4 * entries))))
    logits_PV = hidden_NH.new_empty(rows, entries)
    for first in range(0, tokens, rows):
        piece = slice(first, min(first + rows, tokens))
        yield piece, torch.mm(hidden_NH[piece], weight_VH.T, out=logits_PV[: piece.stop - first])


def _runs(logits_PV: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Runs of a piece's tokens, and their logits."""
    run_bytes = _CPU_RUN_BYTES if _on_cpu(logits_PV) else _DEVICE_RUN_BYTES
    rows = max(1, run_bytes // (4 * logits_PV.shape[1]))
    for index, logits_RV in enumerate(torch.split(logits_PV, rows)):
        yield slice(index * rows, index * rows + len(logits_RV)), logits_RV


def _statistics(logits_PV: Tensor, place_P: Tensor) -> tuple[Tensor, Tensor]:
    wide = _wide(logits_PV.dtype)
    label_P = logits_PV.gather(1, place_P.clamp(min=0)[:, None])[:, 0].to(wide) * (place_P >= 0)
    lse_P = torch.empty_like(label_P)
    for run, logits_RV in _runs(logits_PV):
        top_R = logits_RV.amax(-1).to(wide)
        lse_P[run] = (logits_RV - top_R[:, None]).exp_().sum(-1).log_().add_(top_R)
    return lse_P, label_P


def _to_gradient(logits_PV: Tensor, place_P: Tensor, lse_P: Tensor, grad_P: Tensor, z_loss: float) -> None:
    # d loss / d logit_v = softmax_v * (1 + 2 z lse) - [v is the label]
    hit_P = (place_P >= 0).to(lse_P.dtype)
    place_P = place_P.clamp(min=0)
    for run, logits_RV in _runs(logits_PV):
        slope_RV = (logits_RV - lse_P[run, None]).exp_()
        if z_loss:
            slope_RV.mul_(1 + 2 * z_loss * lse_P[run, None])
        slope_RV.scatter_add_(1, place_P[run, None], -hit_P[run, None])
        torch.mul(slope_RV, grad_P[run, None], out=logits_RV)
        del slope_RV  # before the next one is made


_TORCH = Passes(_statistics, _to_gradient)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        passes: Passes,
        hidden_NH: Tensor,
        weight_VH: Tensor,
        labels_N: Tensor,
        z_loss: float,
        group: distributed.ProcessGroup | None,
    ) -> Tensor:
        entries, wide = len(weight_VH), _wide(hidden_NH.dtype)
        place_N = labels_N - (group.rank() * entries if group is not None else 0)
        place_N = place_N.where((place_N >= 0) & (place_N < entries), -1)
        lse_N, label_N = (torch.empty(len(labels_N), dtype=wide, device=labels_N.device) for _ in range(2))
        for piece, logits_PV in _logits(hidden_NH, weight_VH):
            lse_N[piece], label_N[piece] = passes.statistics(logits_PV, place_N[piece])
        if group is not None and group.size() > 1:
            top_N = lse_N.clone()
            distributed.all_reduce(top_N, distributed.ReduceOp.MAX, group)
            sums_2N = torch.stack(((lse_N - top_N).exp_(), label_N))
            distributed.all_reduce(sums_2N, distributed.ReduceOp.SUM, group)
            lse_N, label_N = sums_2N[0].log_().add_(top_N), sums_2N[1]
        counted_N = labels_N != IGNORED
        ctx.save_for_backward(hidden_NH, weight_VH, place_N, counted_N, lse_N)
        ctx.passes, ctx.z_loss = passes, z_loss
        return (lse_N - label_N + z_loss * lse_N.square()).where(counted_N, 0.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_N: Tensor) -> tuple[None, Tensor | None, Tensor | None, None, None, None]:
        hidden_NH, weight_VH, place_N, counted_N, lse_N = ctx.saved_tensors
        wide = _wide(hidden_NH.dtype)
        grad_N = grad_N.to(wide) * counted_N
        wants_hidden, wants_weight = ctx.needs_input_grad[1:3]
        dhidden_NH = torch.empty_like(hidden_NH) if wants_hidden else None
        # Sums over pieces are kept in fp32: each piece's own product is rounded once.
        dweight_VH = torch.zeros_like(weight_VH, dtype=wide) if wants_weight else None
        for piece, logits_PV in _logits(hidden_NH, weight_VH):
            ctx.passes.to_gradient(logits_PV, place_N[piece], lse_N[piece], grad_N[piece], ctx.z_loss)
            if dhidden_NH is not None:
                torch.mm(logits_PV, weight_VH, out=dhidden_NH[piece])
            if dweight_VH is not None and dweight_VH.dtype == logits_PV.dtype:
                dweight_VH.addmm_(logits_PV.T, hidden_NH[piece])
            elif dweight_VH is not None:
                dweight_VH += logits_PV.T @ hidden_NH[piece]
        dweight = dweight_VH.to(weight_VH.dtype) if dweight_VH is not None else None
        return None, dhidden_NH, dweight, None, None, None
