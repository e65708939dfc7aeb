"""The attention for Hopper as operators of torch: what autograd, recomputation, fake tensors and torch.compile see.

B: rows of the pack, S: queries a row, T: keys a row, H: query heads, G: key and value heads, D: head size,
N: documents (`kernels.packing`). Tensors may have any strides; one whose last axis is not dense, or with steps that are
not multiples of 16 bytes, is copied first, as the tensor memory accelerator cannot fetch it.
"""

import torch
import triton
from torch import Tensor

from trainwright.kernels.hopper import attention
from trainwright.kernels.hopper.tiles import INTERPRETED, TABLE, Configuration
from trainwright.kernels.packing import Packing
from trainwright.kernels.portable import interpreter
from trainwright.kernels.portable.attention import row_sums
from trainwright.kernels.reference import packing_of

DTYPES = (torch.float16, torch.bfloat16)
_ALIGNMENT_BYTES = 16  # of all that a descriptor names
_LOG2_E = 1.4426950408889634
_INTERPRETS = bool(triton.knobs.runtime.interpret)
if _INTERPRETS:
    interpreter.install()


def _configured(q: Tensor) -> Configuration:
    """Raises ValueError for dtypes and head sizes that the kernels do not know."""
    if q.dtype not in DTYPES or q.shape[-1] not in TABLE:
        raise ValueError(f"the Hopper kernels know no {q.dtype} heads of {q.shape[-1]}")
    return INTERPRETED if _INTERPRETS else TABLE[q.shape[-1]]


def _fetchable(x: Tensor) -> Tensor:
    """The tensor, or a copy of it whose rows a descriptor can name."""
    steps = (x.data_ptr(), *(stride * x.element_size() for stride in x.stride()[:-1]))
    if x.stride(-1) == 1 and not any(step % _ALIGNMENT_BYTES for step in steps):
        return x
    return x.clone(memory_format=torch.contiguous_format)


def _strides(*tensors: Tensor) -> list[int]:
    return [stride for tensor in tensors for stride in tensor.stride()[:3]]


def _give_descriptors_room(device: torch.device) -> None:
    """Programs write their descriptors to memory that Triton asks for; each thread has to be told, autograd's too."""
    triton.set_allocator(lambda size, *_: torch.empty(size, dtype=torch.int8, device=device))


@torch.library.custom_op("trainwright::hopper_attention", mutates_args=())
def attention_forward(
    q_BSHD: Tensor,
    k_BTGD: Tensor,
    v_BTGD: Tensor,
    documents_N5: Tensor,
    scale: float,
    causal: bool,
    window: int | None,
    gluon: bool,
) -> tuple[Tensor, Tensor]:
    """o_BSHD, and lse_BHS in fp32: the natural log-sum-exp of each query's scores, -inf where it sees no key.

    Queries outside of every document give zeros. `documents_N5` lies on the CPU; `gluon` asks for the kernel in Gluon,
    which knows no window. Raises ValueError for dtypes and head sizes that the kernels do not know.
    """
    configured = _configured(q_BSHD)
    packing = Packing(documents_N5)
    rows, queries, heads, size = q_BSHD.shape
    device = q_BSHD.device
    q, k, v = (_fetchable(x) for x in (q_BSHD, k_BTGD, v_BTGD))
    covered, _ = packing.covers(rows, queries, k.shape[1])
    o = (torch.empty if covered else torch.zeros)(q.shape, dtype=q.dtype, device=device)
    lse = torch.full((rows, heads, queries), float("-inf"), device=device)
    tiles = configured.forward
    block = tiles.BM
    if gluon:
        if window is not None:
            raise ValueError("the kernel in Gluon knows no window")
        from trainwright.kernels.hopper import gluon_forward

        block = gluon_forward.ROWS
    list_T2 = packing.query_tiles(block, causal=causal, window=window, device=device)
    if not len(list_T2):
        return o, lse
    _give_descriptors_room(device)
    grid = (len(list_T2) * heads,)
    group = heads // k.shape[2]
    inputs = (q, k, v, o, lse, packing.on(device), list_T2, heads, scale * _LOG2_E)
    strides = (*_strides(q, k, v, o), *lse.stride()[:2])
    if gluon:
        keys, stages = gluon_forward.BLOCKS[size]
        gluon_forward.forward[grid](
            *inputs, *strides, GROUP=group, D=size, BN=keys, STAGES=stages, CAUSAL=causal,
            num_warps=4, maxnreg=gluon_forward.REGISTERS,
        )  # fmt: skip
    else:
        attention.forward[grid](
            *inputs, window or 0, *strides, GROUP=group, D=size, BM=tiles.BM, BN=tiles.BN,
            CAUSAL=causal, WINDOW=window is not None, num_warps=tiles.warps, num_stages=tiles.stages,
        )  # fmt: skip
    return o, lse


@attention_forward.register_fake
def _(
    q_BSHD: Tensor, k_BTGD: Tensor, v_BTGD: Tensor, documents_N5: Tensor, scale: float, causal: bool,
    window: int | None, gluon: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    rows, queries, heads, _ = q_BSHD.shape
    return q_BSHD.new_empty(q_BSHD.shape), q_BSHD.new_empty((rows, heads, queries), dtype=torch.float32)


@torch.library.custom_op("trainwright::hopper_attention_backward", mutates_args=())
def attention_backward(
    go_BSHD: Tensor,
    glse_BHS: Tensor | None,
    q_BSHD: Tensor,
    k_BTGD: Tensor,
    v_BTGD: Tensor,
    o_BSHD: Tensor,
    lse_BHS: Tensor,
    documents_N5: Tensor,
    scale: float,
    causal: bool,
    window: int | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values; equal inputs give equal bits.

    `o` and `lse` may be those of a larger attention of which these keys are a part: so a ring gathers its gradients.
    """
    configured = _configured(q_BSHD)
    packing = Packing(documents_N5)
    rows, queries, heads, size = q_BSHD.shape
    device = q_BSHD.device
    q, k, v, go = (_fetchable(x) for x in (q_BSHD, k_BTGD, v_BTGD, go_BSHD))
    groups = k.shape[2]
    delta = torch.empty_like(lse_BHS)
    row_sums[(triton.cdiv(queries, 64), heads, rows)](
        o_BSHD, go, delta, queries, *_strides(o_BSHD, go), *delta.stride()[:2], BM=64, D=size, DP=size
    )
    if glse_BHS is not None:
        delta -= glse_BHS  # the derivative of a log-sum-exp by its scores is the softmax itself
    q_covered, k_covered = packing.covers(rows, queries, k.shape[1])
    gk, gv = ((torch.empty if k_covered else torch.zeros)(x.shape, dtype=x.dtype, device=device) for x in (k, v))
    gq = (torch.empty if q_covered else torch.zeros)(q.shape, dtype=q.dtype, device=device)
    documents, rest = packing.on(device), (scale, scale * _LOG2_E, window or 0)
    common = {"GROUP": heads // groups, "D": size, "CAUSAL": causal, "WINDOW": window is not None}
    _give_descriptors_room(device)
    tiles = configured.keys
    list_T2 = packing.key_tiles(tiles.BN, causal=causal, window=window, device=device)
    if len(list_T2):
        attention.backward_keys[(len(list_T2) * groups,)](
            q, k, v, go, lse_BHS, delta, gk, gv, documents, list_T2, groups, *rest,
            *_strides(q, k, v, go, gk, gv), *lse_BHS.stride()[:2],
            BM=tiles.BM, BN=tiles.BN, SPECIAL=configured.special, **common,
            num_warps=tiles.warps, num_stages=tiles.stages,
        )  # fmt: skip
    tiles = configured.queries
    list_T2 = packing.query_tiles(tiles.BM, causal=causal, window=window, device=device)
    if len(list_T2):
        attention.backward_queries[(len(list_T2) * heads,)](
            q, k, v, go, lse_BHS, delta, gq, documents, list_T2, heads, *rest,
            *_strides(q, k, v, go, gq), *lse_BHS.stride()[:2],
            BM=tiles.BM, BN=tiles.BN, **common,
            num_warps=tiles.warps, num_stages=tiles.stages,
        )  # fmt: skip
    return gq, gk, gv


@attention_backward.register_fake
def _(
    go_BSHD: Tensor, glse_BHS: Tensor | None, q_BSHD: Tensor, k_BTGD: Tensor, v_BTGD: Tensor, o_BSHD: Tensor,
    lse_BHS: Tensor, documents_N5: Tensor, scale: float, causal: bool, window: int | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return tuple(x.new_empty(x.shape) for x in (q_BSHD, k_BTGD, v_BTGD))  # type: ignore[return-value]


def _setup(ctx, inputs, output):  # type: ignore[no-untyped-def]
    q, k, v, documents_N5, *options, _ = inputs
    ctx.options = options
    ctx.save_for_backward(q, k, v, *output, documents_N5)


def _backward(ctx, go, glse):  # type: ignore[no-untyped-def]
    q, k, v, o, lse, documents_N5 = ctx.saved_tensors
    gradients = attention_backward(go, glse, q, k, v, o, lse, documents_N5, *ctx.options)
    return *gradients, None, None, None, None, None


attention_forward.register_autograd(_backward, setup_context=_setup)


def hopper_attention(
    q_SBHD: Tensor,
    k_TBGD: Tensor,
    v_TBGD: Tensor,
    edges_BE: Tensor | None = None,
    scale: float | None = None,
    *,
    gluon: bool = False,
) -> Tensor:
    """softmax(scale q k^T) v inside each document, as `trainwright.kernels.attention` has it. Differentiable."""
    q, k, v = (x.transpose(0, 1) for x in (q_SBHD, k_TBGD, v_TBGD))
    packing = packing_of(edges_BE, len(q), q.shape[1], k.shape[1])
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    o_BSHD, _ = attention_forward(q, k, v, packing.documents_N5, scale, True, None, gluon)
    return o_BSHD.transpose(0, 1)  # type: ignore[no-any-return]
