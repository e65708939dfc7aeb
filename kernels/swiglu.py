"""SwiGLU: silu(gate) * up, where gate and up are the two halves of the last dimension.

N...: any leading dimensions, F: inner width. Keeps only its input for the backward pass.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional


def swiglu(x_N2F: Tensor) -> Tensor:
    """silu(gate_NF) * up_NF in x's dtype. Differentiable."""
    return _SwiGlu.apply(x_N2F)  # type: ignore[no-any-return, no-untyped-call]


class _SwiGlu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_N2F: Tensor) -> Tensor:
        ctx.save_for_backward(x_N2F)
        gate_NF, up_NF = x_N2F.chunk(2, dim=-1)
        return functional.silu(gate_NF).mul_(up_NF)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NF: Tensor) -> Tensor:
        (x_N2F,) = ctx.saved_tensors
        gate_NF, up_NF = x_N2F.chunk(2, dim=-1)
        dx_N2F = torch.empty_like(x_N2F)
        dgate_NF, dup_NF = dx_N2F.chunk(2, dim=-1)
        torch.mul(grad_NF, functional.silu(gate_NF), out=dup_NF)
        dgate_NF.copy_(torch.ops.aten.silu_backward(grad_NF * up_NF, gate_NF))
        return dx_N2F
