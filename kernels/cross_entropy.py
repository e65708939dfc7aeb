"""Cross entropy over a vocabulary that may be split over the ranks of a group.

N: tokens, V: entries of this rank. Overwrites the logits: at 90,000 entries they are the largest tensor of a step.
"""

from typing import Any

import torch
from torch import Tensor, distributed
from torch.autograd.function import once_differentiable

# Rows are worked on in pieces. On a CPU a piece is finished while it lies in the cache. Elsewhere it fills the device,
# and is a small part of all logits, so that no temporary is large.
_CPU_PIECE_BYTES, _DEVICE_PIECE_BYTES, _DEVICE_PIECES = 1 << 21, 1 << 27, 8


def cross_entropy(logits_NV: Tensor, labels_N: Tensor, group: distributed.ProcessGroup | None = None) -> Tensor:
    """-log softmax(logits)[label] per token in fp32, equal on all ranks of `group`; fp32 logits are overwritten.

    Rank r of the group holds entries [r V, (r + 1) V); None: this rank holds all of them. Differentiable once.
    """
    return _CrossEntropy.apply(logits_NV, labels_N, group)  # type: ignore[no-any-return, no-untyped-call]


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits_NV: Tensor, labels_N: Tensor, group: distributed.ProcessGroup | None) -> Tensor:
        ctx.dtype = logits_NV.dtype
        wide = torch.float64 if logits_NV.dtype == torch.float64 else torch.float32
        # The log-probabilities take the place of fp32 logits, and are the only wide copy of others.
        logp_NV = logits_NV if logits_NV.dtype == wide else torch.empty_like(logits_NV, dtype=wide)
        rows = _rows(logp_NV)
        pieces = list(zip(torch.split(logp_NV, rows), torch.split(logits_NV, rows), strict=True))
        if group is None or group.size() == 1:
            mine_N = None
            for logp, logits in pieces:
                logp.copy_(torch.log_softmax(logits, dim=-1, dtype=wide))
            loss_N = -logp_NV.gather(1, labels_N[:, None])[:, 0]
        else:
            labels_N = labels_N - group.rank() * logits_NV.shape[1]
            mine_N = (labels_N >= 0) & (labels_N < logits_NV.shape[1])
            labels_N = labels_N.where(mine_N, 0)
            max_N1 = logits_NV.amax(dim=-1, keepdim=True).to(wide)
            distributed.all_reduce(max_N1, distributed.ReduceOp.MAX, group)
            sum_N = max_N1.new_empty(len(logits_NV))
            for (logp, logits), largest, total in zip(
                pieces, torch.split(max_N1, rows), torch.split(sum_N, rows), strict=True
            ):
                torch.sub(logits, largest, out=logp)
                torch.sum(logp.exp(), dim=-1, out=total)
            sums_2N = torch.stack((sum_N, logp_NV.gather(1, labels_N[:, None])[:, 0] * mine_N))
            distributed.all_reduce(sums_2N, distributed.ReduceOp.SUM, group)
            log_N = sums_2N[0].log()
            loss_N = log_N - sums_2N[1]
            logp_NV.sub_(log_N[:, None])
        ctx.mine_N = mine_N
        ctx.save_for_backward(logp_NV, labels_N)
        return loss_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor, None, None]:
        logp_NV, labels_N = ctx.saved_tensors
        hit_N = grad_N if ctx.mine_N is None else grad_N * ctx.mine_N
        rows = _rows(logp_NV)
        for logp, grad in zip(torch.split(logp_NV, rows), torch.split(grad_N[:, None], rows), strict=True):
            logp.exp_().mul_(grad)
        logp_NV.scatter_add_(1, labels_N[:, None], -hit_N[:, None])
        return logp_NV.to(ctx.dtype), None, None


def _rows(logits_NV: Tensor) -> int:
    """Rows of a piece."""
    device_bytes = min(_DEVICE_PIECE_BYTES, logits_NV.nbytes // _DEVICE_PIECES)
    piece_bytes = _CPU_PIECE_BYTES if _by_cache(logits_NV) else device_bytes
    return max(1, piece_bytes // (logits_NV.element_size() * logits_NV.shape[1]))


def _by_cache(logits_NV: Tensor) -> bool:
    return logits_NV.is_cpu
