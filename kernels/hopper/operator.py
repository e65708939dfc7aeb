"""Starts the Gluon attention; no operator of torch until it was seen to be right on a GPU.

B: rows of the pack, S: queries a row, T: keys a row, H: query heads, G: key and value heads, D: head size.
"""

import torch
import triton
from torch import Tensor

from trainwright.kernels.hopper import attention
from trainwright.kernels.packing import Packing

BLOCKS = {64: (128, 3), 128: (128, 2)}  # by head size: keys of a block, and blocks on their way
REGISTERS = 168  # a thread's when it starts; then 240 of a consumer's, 24 of the producer's
_LOG2_E = 1.4426950408889634
_ALIGNMENT = 16  # bytes, of all that a descriptor names


def attention_forward(
    q_BSHD: Tensor, k_BTGD: Tensor, v_BTGD: Tensor, packing: Packing, scale: float, *, causal: bool = True
) -> tuple[Tensor, Tensor]:
    """o_BSHD, and lse_BHS in fp32, as `kernels.portable.operator.attention_forward` gives them.

    Raises ValueError for dtypes, head sizes and strides that the tensor memory accelerator or the kernel cannot take.
    """
    rows, queries, heads, size = q_BSHD.shape
    if q_BSHD.dtype not in (torch.float16, torch.bfloat16) or size not in BLOCKS:
        raise ValueError(f"the Hopper kernel knows no {q_BSHD.dtype} heads of {size}")
    for x in (q_BSHD, k_BTGD, v_BTGD):
        steps = (x.data_ptr(), *(stride * x.element_size() for stride in x.stride()[:3]))
        if x.stride(-1) != 1 or any(step % _ALIGNMENT for step in steps):
            raise ValueError(f"the Hopper kernel needs a dense last axis and steps of {_ALIGNMENT} bytes")
    covered, _ = packing.covers(rows, queries, k_BTGD.shape[1])
    o = (torch.empty if covered else torch.zeros)(q_BSHD.shape, dtype=q_BSHD.dtype, device=q_BSHD.device)
    lse = torch.full((rows, heads, queries), float("-inf"), device=q_BSHD.device)
    list_T2 = packing.query_tiles(attention.ROWS, causal=causal, window=None, device=q_BSHD.device)
    block, stages = BLOCKS[size]
    if len(list_T2):
        # Where the kernel writes its descriptors.
        triton.set_allocator(lambda size, *_: torch.empty(size, dtype=torch.int8, device=q_BSHD.device))
        attention.forward[(len(list_T2) * heads,)](
            q_BSHD, k_BTGD, v_BTGD, o, lse, packing.on(q_BSHD.device), list_T2, heads, scale * _LOG2_E,
            *q_BSHD.stride()[:3], *k_BTGD.stride()[:3], *v_BTGD.stride()[:3], *o.stride()[:3], *lse.stride()[:2],
            GROUP=heads // k_BTGD.shape[2], D=size, BN=block, STAGES=stages, CAUSAL=causal,
            num_warps=4, maxnreg=REGISTERS,
        )  # fmt: skip
    return o, lse
