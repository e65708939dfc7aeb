"""Rotary position embedding by half-rotation: feature i turns with feature i + D/2 by position * base^(-2i/D).

S: tokens, B: sequences, H: heads, D: head size, P: positions of the tables.
"""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


@lru_cache(maxsize=16)
def tables(positions: int, size: int, base: float, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """cos and sin of every angle, each of shape [S, 1, 1, D/2]; angles are computed in fp32."""
    speeds = 1.0 / base ** (torch.arange(0, size, 2, dtype=torch.float32, device=device) / size)
    angles = torch.outer(torch.arange(positions, dtype=torch.float32, device=device), speeds)[:, None, None]
    return angles.cos().to(dtype), angles.sin().to(dtype)


@lru_cache(maxsize=64)
def positions_of(runs: tuple[tuple[int, int], ...], device: torch.device) -> Tensor:
    """positions_S1 (int32) of tokens that lie in runs of (first position, length).

    A row of documents is a run from 0 each; a rank's zig-zag share of a sequence, cut into twice as many chunks as
    ranks, is two runs.
    """
    parts = [torch.arange(first, first + length, dtype=torch.int32) for first, length in runs]
    return torch.cat(parts)[:, None].to(device)


def ntk_base(base: float, factor: float, size: int) -> float:
    """The base under which the slowest pair of a head of `size` turns `factor` times slower, the fastest as before.

    "NTK-aware" scaling (bloc97, 2023): base * factor^(D / (D - 2)). Dynamic scaling takes `dynamic_factor`.
    """
    return float(base * factor ** (size / (size - 2)))


def dynamic_factor(scaling: float, tokens: int, trained_tokens: int) -> float:
    """The factor for a sequence of `tokens` beyond what was trained: s L / M - (s - 1), and 1 up to M.

    As InternLM2's `DynamicNTKScalingRotaryEmbedding` (Hugging Face's too); its configuration calls s the factor.
    """
    return max(1.0, scaling * tokens / trained_tokens - (scaling - 1.0))


def rotate(
    x_SBHD: Tensor, cos_P11D: Tensor, sin_P11D: Tensor, positions_SB: Tensor | None = None, *, in_place: bool = False
) -> Tensor:
    """x turned by its positions' angles, in a new tensor or in x itself. Differentiable in x.

    `positions_SB` (int; S1 if all sequences agree) are the rows of the tables that tokens take; None: one after the
    other. In place only where autograd lets a tensor be overwritten: not a leaf, and not what another operator kept.
    """
    return _Rotate.apply(x_SBHD, cos_P11D, sin_P11D, positions_SB, in_place)  # type: ignore[no-any-return, no-untyped-call]


def _turn(x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor | None, sign: float) -> Tensor:
    if positions is not None:
        cos, sin = cos[positions, 0], sin[positions, 0]
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    (x1, x2), (out1, out2) = x.chunk(2, dim=-1), out.chunk(2, dim=-1)
    torch.mul(x1, cos, out=out1).addcmul_(x2, sin, value=-sign)
    torch.mul(x2, cos, out=out2).addcmul_(x1, sin, value=sign)
    return out


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor | None, in_place: bool) -> Tensor:
        ctx.save_for_backward(cos, sin, positions)
        out = _turn(x, cos, sin, positions, 1.0)
        if not in_place:
            return out
        ctx.mark_dirty(x)
        return x.copy_(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        cos, sin, positions = ctx.saved_tensors
        return _turn(grad, cos, sin, positions, -1.0), None, None, None, None  # a rotation's adjoint turns back
