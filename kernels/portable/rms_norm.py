"""RMSNorm in Triton, forward and backward, with or without the addition before it; `kernels.rms_norm` defines it.

A program holds a row at a time, so a row is read once. The weight's gradient is summed in two steps without atomics:
each program over its rows, then all programs, whose number is the same on every device; so equal inputs give equal
bits. Statistics are fp32, whatever the dtype; use the torch version for float64.

N...: any leading dimensions, H: features.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from trainwright.kernels.portable import interpreter
from trainwright.kernels.portable.rows import as_rows

_MULTIPROCESSORS = 132  # an H100's and an H200's; a constant, for the sake of equal bits elsewhere
_WARPS_EACH = 32  # what a multiprocessor's registers hold at 64 a thread
_ROWS_EACH = 8  # at least, or the partial sums are a traffic of their own

if triton.knobs.runtime.interpret:
    interpreter.install()


@triton.jit
def forward(
    X, RESIDUAL, WEIGHT, TOTAL, OUT, INVERSE, features, eps, s_x, s_r, ADD: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """One row: its sum with the residual's if there is one, what that is divided by, and the normalised row."""
    row = tl.program_id(0).to(tl.int64)
    h = tl.arange(0, BLOCK)
    inside = h < features
    x = tl.load(X + row * s_x + h, mask=inside, other=0.0).to(tl.float32)
    if ADD:
        total = x + tl.load(RESIDUAL + row * s_r + h, mask=inside, other=0.0).to(tl.float32)
        rounded = total.to(TOTAL.dtype.element_ty)
        tl.store(TOTAL + row * features + h, rounded, mask=inside)
        x = rounded.to(tl.float32)  # as the backward pass will read it
    inverse = tl.math.rsqrt(tl.sum(x * x, 0) / features + eps)
    tl.store(INVERSE + row, inverse)
    normal = (x * inverse).to(OUT.dtype.element_ty).to(tl.float32)  # InternLM2 rounds before the weight
    weight = tl.load(WEIGHT + h, mask=inside, other=0.0).to(tl.float32)
    tl.store(OUT + row * features + h, (normal * weight).to(OUT.dtype.element_ty), mask=inside)


@triton.jit
def backward(
    GOUT, GTOTAL, X, WEIGHT, INVERSE, GX, PARTIAL, rows, features, s_g, s_t, s_x,
    ADD: tl.constexpr, BLOCK: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Gradients of this program's rows, and their part of the weight's gradient; the formula is the torch version's."""
    h = tl.arange(0, BLOCK)
    inside = h < features
    weight = tl.load(WEIGHT + h, mask=inside, other=0.0).to(tl.float32)
    gweight = tl.zeros([BLOCK], tl.float32)
    for number in tl.range(tl.program_id(0), rows, tl.num_programs(0), num_stages=STAGES):
        row = tl.cast(number, tl.int64)
        inverse = tl.load(INVERSE + row)
        normal = tl.load(X + row * s_x + h, mask=inside, other=0.0).to(tl.float32) * inverse
        g = tl.load(GOUT + row * s_g + h, mask=inside, other=0.0).to(tl.float32)
        gweight += g * normal
        g *= weight
        gx = inverse * (g - normal * (tl.sum(g * normal, 0) / features))
        if ADD:
            gx += tl.load(GTOTAL + row * s_t + h, mask=inside, other=0.0).to(tl.float32)
        tl.store(GX + row * features + h, gx.to(GX.dtype.element_ty), mask=inside)
    tl.store(PARTIAL + tl.program_id(0).to(tl.int64) * features + h, gweight, mask=inside)


@dataclass(frozen=True)
class Launch:
    """How rows of a length are worked on: elements a program holds of one, its warps, and rows on their way."""

    block: int
    warps: int
    stages: int = 1

    @classmethod
    def forward(cls, features: int) -> "Launch":
        """Sixteen elements a thread."""
        block = triton.next_power_of_2(features)
        return cls(block, min(16, max(1, block // 512)))

    @classmethod
    def backward(cls, features: int, element_bytes: int) -> "Launch":
        """Eight elements a thread, for more registers each; as many stages as 96 KiB hold of three rows each."""
        block = triton.next_power_of_2(features)
        stages = {0: 3, 1: 2}.get((block * element_bytes - 1) // 16_384, 1)
        return cls(block, min(32, max(1, block // 256)), stages)


def _forward(x_NH: Tensor, residual_NH: Tensor | None, weight_H: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    x = as_rows(x_NH)
    residual = x if residual_NH is None else as_rows(residual_NH)
    out = torch.empty(x_NH.shape, dtype=x_NH.dtype, device=x_NH.device)
    total = out if residual_NH is None else torch.empty_like(out)
    inverse = torch.empty((*x_NH.shape[:-1], 1), device=x_NH.device)
    launch = Launch.forward(x.shape[1])
    if len(x):
        forward[(len(x),)](
            x, residual, weight_H.contiguous(), total, out, inverse, x.shape[1], eps, x.stride(0), residual.stride(0),
            ADD=residual_NH is not None, BLOCK=launch.block, num_warps=launch.warps,
        )  # fmt: skip
    return total, out, inverse


@torch.library.custom_op("trainwright::rms_norm", mutates_args=())
def _norm(x_NH: Tensor, weight_H: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The normalised x, and 1 / sqrt(mean(x^2) + eps) of each row in fp32."""
    return _forward(x_NH, None, weight_H, eps)[1:]


@torch.library.custom_op("trainwright::add_rms_norm", mutates_args=())
def _add_norm(x_NH: Tensor, residual_NH: Tensor, weight_H: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """x + residual, that normalised, and 1 / sqrt(mean((x + residual)^2) + eps) of each row in fp32."""
    return _forward(x_NH, residual_NH, weight_H, eps)


@torch.library.custom_op("trainwright::rms_norm_backward", mutates_args=())
def _norm_backward(
    gout_NH: Tensor, gtotal_NH: Tensor | None, x_NH: Tensor, weight_H: Tensor, inverse_N1: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of what was normalised, with `gtotal_NH` added, and of the weight."""
    x, gout = as_rows(x_NH), as_rows(gout_NH)
    gtotal = gout if gtotal_NH is None else as_rows(gtotal_NH)
    rows, features = x.shape
    gx = torch.empty(x_NH.shape, dtype=x_NH.dtype, device=x_NH.device)
    launch = Launch.backward(features, x.element_size())
    programs = min(_MULTIPROCESSORS * _WARPS_EACH // launch.warps, triton.cdiv(rows, _ROWS_EACH))
    partial = torch.empty((programs, features), device=x_NH.device)
    if rows:
        backward[(programs,)](
            gout, gtotal, x, weight_H.contiguous(), inverse_N1, gx, partial, rows, features,
            gout.stride(0), gtotal.stride(0), x.stride(0),
            ADD=gtotal_NH is not None, BLOCK=launch.block, STAGES=launch.stages, num_warps=launch.warps,
        )  # fmt: skip
    return gx, partial.sum(0).to(weight_H.dtype)


@_norm.register_fake
def _(x_NH: Tensor, weight_H: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    return x_NH.new_empty(x_NH.shape), x_NH.new_empty((*x_NH.shape[:-1], 1), dtype=torch.float32)


@_add_norm.register_fake
def _(x_NH: Tensor, residual_NH: Tensor, weight_H: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    inverse = x_NH.new_empty((*x_NH.shape[:-1], 1), dtype=torch.float32)
    return x_NH.new_empty(x_NH.shape), x_NH.new_empty(x_NH.shape), inverse


@_norm_backward.register_fake
def _(
    gout_NH: Tensor, gtotal_NH: Tensor | None, x_NH: Tensor, weight_H: Tensor, inverse_N1: Tensor
) -> tuple[Tensor, Tensor]:
    return x_NH.new_empty(x_NH.shape), torch.empty_like(weight_H)


def _keep(ctx, inputs, output):
    x, weight, _ = inputs
    ctx.save_for_backward(x, weight, output[1])
    ctx.set_materialize_grads(False)


def _keep_total(ctx, inputs, output):
    total, _, inverse = output
    ctx.save_for_backward(total, inputs[2], inverse)
    ctx.set_materialize_grads(False)


def _from_normal(ctx, gout, ginverse):
    return *_norm_backward(gout, None, *ctx.saved_tensors), None


def _from_total_and_normal(ctx, gtotal, gout, ginverse):
    if gout is None:  # the normalised half was not used
        return gtotal, gtotal, None, None
    gx, gweight = _norm_backward(gout, gtotal, *ctx.saved_tensors)
    return gx, gx, gweight, None


_norm.register_autograd(_from_normal, setup_context=_keep)
_add_norm.register_autograd(_from_total_and_normal, setup_context=_keep_total)


def rms_norm(x_NH: Tensor, weight_H: Tensor, eps: float) -> Tensor:
    """The normalised x, in x's dtype. Differentiable in x and the weight."""
    return _norm(x_NH, weight_H, eps)[0]  # type: ignore[no-any-return]


def add_rms_norm(x_NH: Tensor, residual_NH: Tensor, weight_H: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x + residual in their dtype, and that normalised. Differentiable in all three tensors."""
    total_NH, out_NH, _ = _add_norm(x_NH, residual_NH, weight_H, eps)
    return total_NH, out_NH
