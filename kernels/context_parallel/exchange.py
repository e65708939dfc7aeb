"""What context ranks send each other: everyone's tokens, heads for tokens, a block to the next rank.

S: tokens of this rank, P: ranks of the group, T = S P: tokens of all of them in order, B: rows, H: heads, D: head size;
... are further axes. Over NCCL and gloo alike.
"""

from typing import Any

import torch
from torch import Tensor, distributed
from torch.autograd.function import once_differentiable
from torch.distributed import ProcessGroup

# Their names until torch 2.12, which warns of nothing, and from torch 2.13 on, which warns of the old ones.
_all_gather = getattr(distributed, "all_gather_single", distributed.all_gather_into_tensor)
_reduce_scatter = getattr(distributed, "reduce_scatter_single", distributed.reduce_scatter_tensor)


def in_order(x_PS: Tensor) -> Tensor:
    """[P, S, ...], what each rank holds, as [T, ...]: early slices by rank, then late slices, the last rank's first."""
    slices = x_PS.reshape(len(x_PS), 2, -1, *x_PS.shape[2:])
    return torch.cat((slices[:, 0], slices[:, 1].flip(0))).flatten(0, 1)


def by_rank(x_T: Tensor, ranks: int) -> Tensor:
    """[T, ...] as [P, S, ...], what each rank holds: undoes `in_order`."""
    slices = x_T.reshape(2 * ranks, -1, *x_T.shape[1:])
    return torch.stack((slices[:ranks], slices[ranks:].flip(0)), 1).flatten(1, 2)


class Gathering:
    """Everyone's [S, ...] on its way to all."""

    def __init__(self, x_S: Tensor, group: ProcessGroup) -> None:
        self._ranks = group.size()
        self._sent = x_S.contiguous()  # must live until it has gone
        self._received = x_S.new_empty((self._ranks * len(x_S), *x_S.shape[1:]))
        self._work = _all_gather(self._received, self._sent, group=group, async_op=True)

    def wait(self) -> Tensor:
        """[T, ...]. To be called once: it lets go of what came in."""
        self._work.wait()
        whole_T = in_order(self._received.view(self._ranks, *self._sent.shape))
        del self._received, self._sent
        return whole_T


class Summing:
    """Everyone's [T, ...] on its way to be summed, each part where it is held."""

    def __init__(self, x_T: Tensor, group: ProcessGroup) -> None:
        parts = by_rank(x_T, group.size())
        self._sent = parts.flatten(0, 1)  # must live until it has gone
        self._received = parts.new_empty(parts.shape[1:])
        self._work = _reduce_scatter(self._received, self._sent, group=group, async_op=True)

    def wait(self) -> Tensor:
        """[S, ...]: this rank's part of the sum. To be called once: it lets go of what was sent."""
        self._work.wait()
        del self._sent
        return self._received


class Passed:
    """A tensor on its way to the next rank of the ring, while that of the rank before comes in."""

    def __init__(self, x: Tensor, group: ProcessGroup, tag: int) -> None:
        rank, ranks = group.rank(), group.size()
        self._sent = x.contiguous()  # must live until it has gone
        self._received = torch.empty_like(self._sent)
        self._works = distributed.batch_isend_irecv(
            [
                distributed.P2POp(distributed.isend, self._sent, None, group, tag, (rank + 1) % ranks),
                distributed.P2POp(distributed.irecv, self._received, None, group, tag, (rank - 1) % ranks),
            ]
        )

    def wait(self) -> Tensor:
        """What the rank before has passed on."""
        for work in self._works:
            work.wait()
        return self._received


def heads_for_tokens(x_SBHD: Tensor, group: ProcessGroup) -> Tensor:
    """x_TBHD with H / P of the heads and everyone's tokens. H must be divisible by P. Differentiable."""
    return _HeadsForTokens.apply(x_SBHD, group)  # type: ignore[no-any-return, no-untyped-call]


def tokens_for_heads(x_TBHD: Tensor, group: ProcessGroup) -> Tensor:
    """x_SBHD with all heads and this rank's tokens: undoes `heads_for_tokens`. Differentiable."""
    return _TokensForHeads.apply(x_TBHD, group)  # type: ignore[no-any-return, no-untyped-call]


def _to_heads(x_SBHD: Tensor, group: ProcessGroup) -> Tensor:
    tokens, rows, _, size = x_SBHD.shape
    sent = x_SBHD.reshape(tokens, rows, group.size(), -1, size).movedim(2, 0).contiguous()
    received = torch.empty_like(sent)
    distributed.all_to_all_single(received, sent, group=group)
    return in_order(received)


def _to_tokens(x_TBHD: Tensor, group: ProcessGroup) -> Tensor:
    sent = by_rank(x_TBHD, group.size())
    received = torch.empty_like(sent)
    distributed.all_to_all_single(received, sent, group=group)
    return received.movedim(0, 2).flatten(2, 3)


class _HeadsForTokens(torch.autograd.Function):
    """A permutation over all ranks: its adjoint is its inverse."""

    @staticmethod
    def forward(ctx: Any, x_SBHD: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group = group
        return _to_heads(x_SBHD, group)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_TBHD: Tensor) -> tuple[Tensor, None]:
        return _to_tokens(gradient_TBHD, ctx.group), None


class _TokensForHeads(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_TBHD: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group = group
        return _to_tokens(x_TBHD, group)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_SBHD: Tensor) -> tuple[Tensor, None]:
        return _to_heads(gradient_SBHD, ctx.group), None
