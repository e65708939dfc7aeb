"""Cross entropy over a vocabulary that may be split over the ranks of a group.

N: tokens, V: entries of this rank. Overwrites the logits: at 90,000 entries they are the largest tensor of a step.
"""

from typing import Any

import torch
from torch import Tensor, distributed
from torch.autograd.function import once_differentiable

_CHUNK_BYTES = 1 << 21  # rows are finished while they lie in the cache


def cross_entropy(logits_NV: Tensor, labels_N: Tensor, group: distributed.ProcessGroup | None = None) -> Tensor:
    """-log softmax(logits)[label] per token in fp32, equal on all ranks of `group`; fp32 logits are overwritten.

    Rank r of the group holds entries [r V, (r + 1) V); None: this rank holds all of them. Differentiable once.
    """
    return _CrossEntropy.apply(logits_NV, labels_N, group)  # type: ignore[no-any-return, no-untyped-call]


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits_NV: Tensor, labels_N: Tensor, group: distributed.ProcessGroup | None) -> Tensor:
        ctx.dtype = logits_NV.dtype
        wide_NV = logits_NV if logits_NV.dtype == torch.float64 else logits_NV.float()
        if group is None or group.size() == 1:
            logp_NV, mine_N = torch.log_softmax(wide_NV, dim=-1), None
            loss_N = -logp_NV.gather(1, labels_N[:, None])[:, 0]
        else:
            labels_N = labels_N - group.rank() * wide_NV.shape[1]
            mine_N = (labels_N >= 0) & (labels_N < wide_NV.shape[1])
            labels_N = labels_N.where(mine_N, 0)
            max_N1 = wide_NV.amax(dim=-1, keepdim=True)
            distributed.all_reduce(max_N1, distributed.ReduceOp.MAX, group)
            logp_NV = wide_NV.sub_(max_N1)
            sums_2N = torch.stack((logp_NV.exp().sum(-1), logp_NV.gather(1, labels_N[:, None])[:, 0] * mine_N))
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
        rows = max(1, _CHUNK_BYTES // (logp_NV.element_size() * logp_NV.shape[1])) if logp_NV.is_cpu else len(logp_NV)
        for logp, grad in zip(torch.split(logp_NV, rows), torch.split(grad_N[:, None], rows), strict=True):
            logp.exp_().mul_(grad)
        logp_NV.scatter_add_(1, labels_N[:, None], -hit_N[:, None])
        return logp_NV.to(ctx.dtype), None, None
