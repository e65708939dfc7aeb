"""SwiGLU in Triton, forward and backward; `kernels.swiglu` defines it. Computed in fp32, rounded once.

N...: any leading dimensions, F: inner width.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from trainwright.kernels.portable import interpreter
from trainwright.kernels.portable.rows import as_rows

BLOCK, WARPS = 1024, 4  # a program's columns: one load of 16 bytes a thread of each half in bf16

if triton.knobs.runtime.interpret:
    interpreter.install()


@triton.jit
def _place(width, BLOCK: tl.constexpr):
    """Row and columns of this program; neighbours work on neighbouring columns."""
    blocks = tl.cdiv(width, BLOCK)
    row = (tl.program_id(0) // blocks).to(tl.int64)
    return row, tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)


@triton.jit
def forward(X, OUT, width, s_x, BLOCK: tl.constexpr):
    """silu(gate) * up."""
    row, f = _place(width, BLOCK)
    gate = tl.load(X + row * s_x + f, mask=f < width, other=0.0).to(tl.float32)
    up = tl.load(X + row * s_x + width + f, mask=f < width, other=0.0).to(tl.float32)
    out = gate * tl.sigmoid(gate) * up
    tl.store(OUT + row * width + f, out.to(OUT.dtype.element_ty), mask=f < width)


@triton.jit
def backward(GOUT, X, GX, width, s_g, s_x, BLOCK: tl.constexpr):
    """Gradients of gate and up, side by side as they lie in X."""
    row, f = _place(width, BLOCK)
    g = tl.load(GOUT + row * s_g + f, mask=f < width, other=0.0).to(tl.float32)
    gate = tl.load(X + row * s_x + f, mask=f < width, other=0.0).to(tl.float32)
    up = tl.load(X + row * s_x + width + f, mask=f < width, other=0.0).to(tl.float32)
    share = tl.sigmoid(gate)
    ggate = g * up * share * (1.0 + gate * (1.0 - share))
    gup = g * gate * share
    at = GX + row * (2 * width) + f
    tl.store(at, ggate.to(GX.dtype.element_ty), mask=f < width)
    tl.store(at + width, gup.to(GX.dtype.element_ty), mask=f < width)


@torch.library.custom_op("trainwright::swiglu", mutates_args=())
def swiglu(x_N2F: Tensor) -> Tensor:
    """silu(gate_NF) * up_NF in x's dtype; gate and up are the halves of the last axis. Differentiable."""
    x = as_rows(x_N2F)
    width = x.shape[1] // 2
    out = torch.empty((*x_N2F.shape[:-1], width), dtype=x.dtype, device=x.device)
    if out.numel():
        programs = len(x) * triton.cdiv(width, BLOCK)
        forward[(programs,)](x, out, width, x.stride(0), BLOCK=BLOCK, num_warps=WARPS)
    return out


@torch.library.custom_op("trainwright::swiglu_backward", mutates_args=())
def _swiglu_backward(gout_NF: Tensor, x_N2F: Tensor) -> Tensor:
    x, gout = as_rows(x_N2F), as_rows(gout_NF)
    width = gout.shape[1]
    gx = torch.empty(x_N2F.shape, dtype=x.dtype, device=x.device)
    if gx.numel():
        programs = len(x) * triton.cdiv(width, BLOCK)
        backward[(programs,)](gout, x, gx, width, gout.stride(0), x.stride(0), BLOCK=BLOCK, num_warps=WARPS)
    return gx


@swiglu.register_fake
def _(x_N2F: Tensor) -> Tensor:
    return x_N2F.new_empty((*x_N2F.shape[:-1], x_N2F.shape[-1] // 2))


@_swiglu_backward.register_fake
def _(gout_NF: Tensor, x_N2F: Tensor) -> Tensor:
    return x_N2F.new_empty(x_N2F.shape)


swiglu.register_autograd(
    lambda ctx, gout: _swiglu_backward(gout, *ctx.saved_tensors),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
)
