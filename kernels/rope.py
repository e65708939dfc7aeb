"""Rotary position embedding by half-rotation: feature i turns with feature i + D/2 by position * base^(-2i/D).

S: positions, B: sequences, H: heads, D: head size.
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


def rotate(x_SBHD: Tensor, cos_S11D: Tensor, sin_S11D: Tensor) -> Tensor:
    """x turned by its positions' angles, in a new tensor. Differentiable in x."""
    return _Rotate.apply(x_SBHD, cos_S11D, sin_S11D)  # type: ignore[no-any-return, no-untyped-call]


def _turn(x: Tensor, cos: Tensor, sin: Tensor, sign: float) -> Tensor:
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    (x1, x2), (out1, out2) = x.chunk(2, dim=-1), out.chunk(2, dim=-1)
    torch.mul(x1, cos, out=out1).addcmul_(x2, sin, value=-sign)
    torch.mul(x2, cos, out=out2).addcmul_(x1, sin, value=sign)
    return out


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turn(x, cos, sin, 1.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turn(grad, cos, sin, -1.0), None, None  # a rotation's adjoint turns back
