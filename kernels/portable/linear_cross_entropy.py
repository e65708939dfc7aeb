"""The head and its loss with what lies between its products in Triton; `kernels.linear_cross_entropy` defines it.

Forward, a piece of the logits is read once; backward it is read and written once, in place, and there is no copy in
fp32. The products stay torch's: beside the 2 H operations of a logit, reading and writing its two bytes is little.

P: tokens of a piece, V: vocabulary entries of this rank.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor, distributed

from trainwright.kernels.linear_cross_entropy import Passes, in_pieces
from trainwright.kernels.portable import interpreter

STATISTICS_BLOCK, STATISTICS_WARPS = 4096, 8  # columns at a time: 16 a thread
GRADIENT_BLOCK, GRADIENT_WARPS = 2048, 4  # a program's columns: 16 a thread

if triton.knobs.runtime.interpret:
    interpreter.install()


@triton.jit
def statistics(LOGITS, PLACES, LSE, LABEL, width, s_l, BLOCK: tl.constexpr):
    """One row: its log-sum-exp, kept right while its columns come block by block, and the label's logit."""
    row = tl.program_id(0).to(tl.int64)
    start = LOGITS + row * s_l
    top = -1e38  # finite, so that a block of minus infinities adds nothing
    total = 0.0
    for first in range(0, width, BLOCK):
        v = first + tl.arange(0, BLOCK)
        logit = tl.load(start + v, mask=v < width, other=float("-inf")).to(tl.float32)
        higher = tl.maximum(top, tl.max(logit, 0))
        total = total * tl.exp(top - higher) + tl.sum(tl.exp(logit - higher), 0)
        top = higher
    tl.store(LSE + row, top + tl.log(total))
    place = tl.load(PLACES + row)
    tl.store(LABEL + row, tl.load(start + place, mask=place >= 0, other=0.0).to(tl.float32))


@triton.jit
def to_gradient(LOGITS, PLACES, LSE, GRAD, width, s_l, z_loss, BLOCK: tl.constexpr):
    """A block of one row, in place: (softmax (1 + 2 z lse) - [the label's]) * grad."""
    blocks = tl.cdiv(width, BLOCK)
    row = (tl.program_id(0) // blocks).to(tl.int64)
    v = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    lse = tl.load(LSE + row)
    at = LOGITS + row * s_l + v
    logit = tl.load(at, mask=v < width, other=0.0).to(tl.float32)
    slope = tl.exp(logit - lse) * (1.0 + 2.0 * z_loss * lse)
    slope = tl.where(v == tl.load(PLACES + row), slope - 1.0, slope) * tl.load(GRAD + row)
    tl.store(at, slope.to(LOGITS.dtype.element_ty), mask=v < width)


@torch.library.custom_op("trainwright::logit_statistics", mutates_args=())
def _statistics(logits_PV: Tensor, place_P: Tensor) -> tuple[Tensor, Tensor]:
    lse, label = (torch.empty(len(logits_PV), device=logits_PV.device) for _ in range(2))
    if len(logits_PV):
        statistics[(len(logits_PV),)](
            logits_PV, place_P.contiguous(), lse, label, logits_PV.shape[1], logits_PV.stride(0),
            BLOCK=STATISTICS_BLOCK, num_warps=STATISTICS_WARPS,
        )  # fmt: skip
    return lse, label


@torch.library.custom_op("trainwright::logits_to_gradient", mutates_args=("logits_PV",))
def _to_gradient(logits_PV: Tensor, place_P: Tensor, lse_P: Tensor, grad_P: Tensor, z_loss: float) -> None:
    rows, width = logits_PV.shape
    if rows:
        to_gradient[(rows * triton.cdiv(width, GRADIENT_BLOCK),)](
            logits_PV, place_P.contiguous(), lse_P.contiguous(), grad_P.contiguous(), width, logits_PV.stride(0),
            z_loss, BLOCK=GRADIENT_BLOCK, num_warps=GRADIENT_WARPS,
        )  # fmt: skip


@_statistics.register_fake
def _(logits_PV: Tensor, place_P: Tensor) -> tuple[Tensor, Tensor]:
    empty = logits_PV.new_empty(len(logits_PV), dtype=torch.float32)
    return empty, torch.empty_like(empty)


_PASSES = Passes(_statistics, _to_gradient)


def linear_cross_entropy(
    hidden_NH: Tensor,
    weight_VH: Tensor,
    labels_N: Tensor,
    *,
    z_loss: float = 0.0,
    group: distributed.ProcessGroup | None = None,
) -> Tensor:
    """As `kernels.linear_cross_entropy.linear_cross_entropy`, always in fp32."""
    return in_pieces(_PASSES, hidden_NH, weight_VH, labels_N, z_loss, group)
