"""Rotary position embedding in Triton; `kernels.rope` defines it. Computed in fp32, rounded once.

One kernel turns forward and back, into a new tensor or in place: a program reads both halves of its rows before it
writes either. The angle of a token is looked up at its position, so no table is made for documents or for the slices
of context parallelism.

S: tokens, B: sequences, H: heads, D: head size, P: positions of the table.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from trainwright.kernels.portable import interpreter

_ELEMENTS, WARPS = 2048, 4  # a program's pairs: two loads of 16 bytes a thread of each half in bf16

if triton.knobs.runtime.interpret:
    interpreter.install()


@triton.jit
def turn(
    X, OUT, COS, SIN, POSITIONS, rows, sequences, heads, half, sign,
    s_xs, s_xb, s_xh, s_os, s_ob, s_oh, s_cos, s_sin, s_ps, s_pb,
    PLACED: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """ROWS heads of tokens turned by the angles of their positions, back if `sign` is -1."""
    row_R = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    token_R = row_R // heads
    h_R = (row_R % heads).to(tl.int64)
    b_R = (token_R % sequences).to(tl.int64)
    s_R = (token_R // sequences).to(tl.int64)
    d = tl.arange(0, BLOCK)
    inside = (row_R < rows)[:, None] & (d < half)[None, :]
    position_R = s_R
    if PLACED:
        position_R = tl.load(POSITIONS + s_R * s_ps + b_R * s_pb, mask=row_R < rows, other=0).to(tl.int64)
    cos = tl.load(COS + position_R[:, None] * s_cos + d[None, :], mask=inside, other=0.0).to(tl.float32)
    sin = tl.load(SIN + position_R[:, None] * s_sin + d[None, :], mask=inside, other=0.0).to(tl.float32) * sign
    at = X + (s_R * s_xs + b_R * s_xb + h_R * s_xh)[:, None] + d[None, :]
    x1 = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    x2 = tl.load(at + half, mask=inside, other=0.0).to(tl.float32)
    at = OUT + (s_R * s_os + b_R * s_ob + h_R * s_oh)[:, None] + d[None, :]
    tl.store(at, (x1 * cos - x2 * sin).to(OUT.dtype.element_ty), mask=inside)
    tl.store(at + half, (x2 * cos + x1 * sin).to(OUT.dtype.element_ty), mask=inside)


def rows_and_block(half: int) -> tuple[int, int]:
    """Rows of a program, and the width of each."""
    block = triton.next_power_of_2(half)
    return max(1, _ELEMENTS // block), block


def _turn(x: Tensor, out: Tensor, cos: Tensor, sin: Tensor, positions: Tensor | None, sign: float) -> None:
    tokens, sequences, heads, size = x.shape
    cos, sin = cos.contiguous(), sin.contiguous()
    # Positions may be given once for all sequences: then their stride along B is 0.
    placed = cos if positions is None else positions.expand(tokens, sequences)
    count, block = rows_and_block(size // 2)
    rows = tokens * sequences * heads
    if rows:
        turn[(triton.cdiv(rows, count),)](
            x, out, cos, sin, placed, rows, sequences, heads, size // 2, sign,
            *x.stride()[:3], *out.stride()[:3], cos.stride(0), sin.stride(0), *placed.stride()[:2],
            PLACED=positions is not None, ROWS=count, BLOCK=block, num_warps=WARPS,
        )  # fmt: skip


@torch.library.custom_op("trainwright::rotate", mutates_args=())
def _rotated(x_SBHD: Tensor, cos_P11D: Tensor, sin_P11D: Tensor, positions_SB: Tensor | None, sign: float) -> Tensor:
    x = x_SBHD if x_SBHD.stride(-1) == 1 else x_SBHD.contiguous()
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    _turn(x, out, cos_P11D, sin_P11D, positions_SB, sign)
    return out


@_rotated.register_fake
def _(x_SBHD: Tensor, cos_P11D: Tensor, sin_P11D: Tensor, positions_SB: Tensor | None, sign: float) -> Tensor:
    return x_SBHD.new_empty(x_SBHD.shape)


def _keep(ctx, inputs, output):
    _, cos, sin, positions, ctx.sign = inputs
    ctx.save_for_backward(cos, sin, positions)


def _back(ctx, gout):
    return _rotated(gout, *ctx.saved_tensors, -ctx.sign), None, None, None, None


_rotated.register_autograd(_back, setup_context=_keep)


@torch.library.custom_op("trainwright::rotate_in_place", mutates_args=("x_SBHD",))
def _rotate_in_place(x_SBHD: Tensor, cos_P11D: Tensor, sin_P11D: Tensor, positions_SB: Tensor | None) -> None:
    if x_SBHD.stride(-1) != 1:
        raise ValueError("a tensor is rotated in place only if its last axis is dense")
    _turn(x_SBHD, x_SBHD, cos_P11D, sin_P11D, positions_SB, 1.0)


class _RotateInPlace(torch.autograd.Function):
    """Torch registers no gradient for an operator that writes into its argument; this tells autograd of it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor | None) -> Tensor:
        ctx.save_for_backward(cos, sin, positions)
        ctx.mark_dirty(x)
        _rotate_in_place(x, cos, sin, positions)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gout: Tensor) -> tuple[Tensor, None, None, None]:
        return _rotated(gout, *ctx.saved_tensors, -1.0), None, None, None


def rotate(
    x_SBHD: Tensor, cos_P11D: Tensor, sin_P11D: Tensor, positions_SB: Tensor | None = None, *, in_place: bool = False
) -> Tensor:
    """x turned by its positions' angles, in a new tensor or in x itself. Differentiable in x.

    As `kernels.rope.rotate`, but a position outside of the table is not refused: it reads other memory.
    """
    if in_place:
        return _RotateInPlace.apply(x_SBHD, cos_P11D, sin_P11D, positions_SB)  # type: ignore[no-any-return, no-untyped-call]
    return _rotated(x_SBHD, cos_P11D, sin_P11D, positions_SB, 1.0)  # type: ignore[no-any-return]
