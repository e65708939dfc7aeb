"""RMSNorm in fp32: x / sqrt(mean(x^2) + eps), cast back to x's dtype, then times the weight (InternLM2's order).

N...: any leading dimensions, H: features. Written with its own backward pass: autograd's would keep five fp32 copies
of the activations, this one keeps the input and one number a token.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def rms_norm(x_NH: Tensor, weight_H: Tensor, eps: float) -> Tensor:
    """The normalised x, in x's dtype. Differentiable in x and the weight."""
    return _RmsNorm.apply(x_NH, weight_H, eps)  # type: ignore[no-any-return, no-untyped-call]


def add_rms_norm(x_NH: Tensor, residual_NH: Tensor, weight_H: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x + residual in their dtype, and that normalised. Differentiable in all three tensors."""
    total_NH = x_NH + residual_NH
    return total_NH, rms_norm(total_NH, weight_H, eps)


def _wide(x: Tensor) -> Tensor:
    """x in at least fp32."""
    return x if x.dtype == torch.float64 else x.float()


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_NH: Tensor, weight_H: Tensor, eps: float) -> Tensor:
        wide_NH = _wide(x_NH)
        inverse_N1 = wide_NH.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
        ctx.save_for_backward(x_NH, weight_H, inverse_N1)
        return (wide_NH * inverse_N1).to(x_NH.dtype).mul_(weight_H)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NH: Tensor) -> tuple[Tensor, Tensor, None]:
        # With r = inverse, n = x r and g = grad * weight: dx = r (g - n mean(g n)), dweight = sum over N of grad * n.
        x_NH, weight_H, inverse_N1 = ctx.saved_tensors
        normal_NH = _wide(x_NH) * inverse_N1
        wide_NH = _wide(grad_NH)
        product_NH = wide_NH * normal_NH
        dweight_H = product_NH.flatten(0, -2).sum(0)
        mean_N1 = (product_NH @ _wide(weight_H)).div_(x_NH.shape[-1]).unsqueeze(-1)
        dx_NH = (wide_NH * _wide(weight_H)).sub_(normal_NH.mul_(mean_N1)).mul_(inverse_N1)
        return dx_NH.to(x_NH.dtype), dweight_H.to(weight_H.dtype), None
