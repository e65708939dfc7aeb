"""The Triton attention as operators of torch: what autograd, recomputation, fake tensors and torch.compile see.

B: rows of the pack, S: queries a row, T: keys a row, H: query heads, G: key and value heads, D: head size,
N: documents (`kernels.packing`). Tensors may have any strides but for the last axis, which is dense.
"""

import torch
import triton
from torch import Tensor

from trainwright.kernels.packing import Packing
from trainwright.kernels.portable import attention, interpreter
from trainwright.kernels.portable.tiles import INTERPRETED, Configuration, configuration
from trainwright.kernels.reference import packing_of

HEAD_SIZE = 256  # the largest
_LOG2_E = 1.4426950408889634
_INTERPRETS = bool(triton.knobs.runtime.interpret)
if _INTERPRETS:
    interpreter.install()


def _tiles(q: Tensor) -> Configuration:
    return INTERPRETED if _INTERPRETS else configuration(q.shape[-1], q.element_size())


def _strides(*tensors: Tensor) -> list[int]:
    return [stride for tensor in tensors for stride in tensor.stride()[:3]]


def _common(q: Tensor, causal: bool, window: int | None) -> dict[str, object]:
    size = q.shape[-1]
    return {
        "D": size,
        "DP": max(16, triton.next_power_of_2(size)),
        "CAUSAL": causal,
        "WINDOW": window is not None,
        "PRECISION": "ieee" if q.dtype == torch.float32 else "tf32",
    }


@torch.library.custom_op("trainwright::attention", mutates_args=())
def attention_forward(
    q_BSHD: Tensor,
    k_BTGD: Tensor,
    v_BTGD: Tensor,
    documents_N5: Tensor,
    scale: float,
    causal: bool,
    window: int | None,
    deterministic: bool,
) -> tuple[Tensor, Tensor]:
    """o_BSHD, and lse_BHS in fp32: the natural log-sum-exp of each query's scores, -inf where it sees no key.

    Queries outside of every document give zeros. `documents_N5` lies on the CPU; `deterministic` is for the gradient.
    """
    packing = Packing(documents_N5)
    rows, queries, heads, _ = q_BSHD.shape
    covered, _ = packing.covers(rows, queries, k_BTGD.shape[1])
    make = torch.empty if covered else torch.zeros
    o = make(q_BSHD.shape, dtype=q_BSHD.dtype, device=q_BSHD.device)
    lse = torch.full((rows, heads, queries), float("-inf"), device=q_BSHD.device)
    tiles = _tiles(q_BSHD).forward
    list_T2 = packing.query_tiles(tiles.BM, causal=causal, window=window, device=q_BSHD.device)
    if len(list_T2):
        attention.forward[(len(list_T2) * heads,)](
            q_BSHD, k_BTGD, v_BTGD, o, lse, packing.on(q_BSHD.device), list_T2, heads, scale * _LOG2_E, window or 0,
            *_strides(q_BSHD, k_BTGD, v_BTGD, o), *lse.stride()[:2],
            GROUP=heads // k_BTGD.shape[2], BM=tiles.BM, BN=tiles.BN, **_common(q_BSHD, causal, window),
            num_warps=tiles.warps, num_stages=tiles.stages,
        )  # fmt: skip
    return o, lse


@attention_forward.register_fake
def _(
    q_BSHD: Tensor, k_BTGD: Tensor, v_BTGD: Tensor, documents_N5: Tensor, scale: float, causal: bool,
    window: int | None, deterministic: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    rows, queries, heads, _ = q_BSHD.shape
    return q_BSHD.new_empty(q_BSHD.shape), q_BSHD.new_empty((rows, heads, queries), dtype=torch.float32)


@torch.library.custom_op("trainwright::attention_backward", mutates_args=())
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
    deterministic: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values.

    `o` and `lse` may be those of a larger attention of which these keys are a part: so a ring gathers its gradients.
    """
    packing = Packing(documents_N5)
    rows, queries, heads, _ = q_BSHD.shape
    groups = k_BTGD.shape[2]
    device = q_BSHD.device
    go_BSHD = go_BSHD if go_BSHD.stride(-1) == 1 else go_BSHD.contiguous()
    delta = torch.empty_like(lse_BHS)
    common = _common(q_BSHD, causal, window)
    sizes = {key: common[key] for key in ("D", "DP")}
    attention.row_sums[(triton.cdiv(queries, 64), heads, rows)](
        o_BSHD, go_BSHD, delta, queries, *_strides(o_BSHD, go_BSHD), *delta.stride()[:2], BM=64, **sizes
    )
    if glse_BHS is not None:
        delta -= glse_BHS  # the derivative of a log-sum-exp by its scores is the softmax itself
    q_covered, k_covered = packing.covers(rows, queries, k_BTGD.shape[1])
    gk, gv = (
        (torch.empty if k_covered else torch.zeros)(x.shape, dtype=x.dtype, device=device) for x in (k_BTGD, v_BTGD)
    )
    configured = _tiles(q_BSHD)
    tiles, documents = configured.keys, packing.on(device)
    list_T2 = packing.key_tiles(tiles.BN, causal=causal, window=window, device=device)
    wide = torch.zeros(q_BSHD.shape, device=device) if not deterministic else torch.empty((1, 1, 1, 1), device=device)
    inputs = (q_BSHD, k_BTGD, v_BTGD, go_BSHD)
    rest = (scale, scale * _LOG2_E, window or 0)
    if len(list_T2):
        attention.backward_keys[(len(list_T2) * groups,)](
            *inputs, lse_BHS, delta, wide, gk, gv, documents, list_T2, groups, *rest,
            *_strides(*inputs, wide, gk, gv), *lse_BHS.stride()[:2],
            GROUP=heads // groups, BM=tiles.BM, BN=tiles.BN, ATOMIC=not deterministic, **common,
            num_warps=tiles.warps, num_stages=tiles.stages,
        )  # fmt: skip
    if not deterministic:
        return wide.to(q_BSHD.dtype), gk, gv
    gq = (torch.empty if q_covered else torch.zeros)(q_BSHD.shape, dtype=q_BSHD.dtype, device=device)
    tiles = configured.queries
    list_T2 = packing.query_tiles(tiles.BM, causal=causal, window=window, device=device)
    if len(list_T2):
        attention.backward_queries[(len(list_T2) * heads,)](
            *inputs, lse_BHS, delta, gq, documents, list_T2, heads, *rest,
            *_strides(*inputs, gq), *lse_BHS.stride()[:2],
            GROUP=heads // groups, BM=tiles.BM, BN=tiles.BN, **common,
            num_warps=tiles.warps, num_stages=tiles.stages,
        )  # fmt: skip
    return gq, gk, gv


@attention_backward.register_fake
def _(
    go_BSHD: Tensor, glse_BHS: Tensor | None, q_BSHD: Tensor, k_BTGD: Tensor, v_BTGD: Tensor, o_BSHD: Tensor,
    lse_BHS: Tensor, documents_N5: Tensor, scale: float, causal: bool, window: int | None, deterministic: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return tuple(x.new_empty(x.shape) for x in (q_BSHD, k_BTGD, v_BTGD))  # type: ignore[return-value]


def _setup(ctx, inputs, output):  # type: ignore[no-untyped-def]
    q, k, v, documents_N5, *ctx.options = inputs
    ctx.save_for_backward(q, k, v, *output, documents_N5)


def _backward(ctx, go, glse):  # type: ignore[no-untyped-def]
    q, k, v, o, lse, documents_N5 = ctx.saved_tensors
    gradients = attention_backward(go, glse, q, k, v, o, lse, documents_N5, *ctx.options)
    return *gradients, None, None, None, None, None


attention_forward.register_autograd(_backward, setup_context=_setup)


def portable_attention(
    q_SBHD: Tensor, k_TBGD: Tensor, v_TBGD: Tensor, edges_BE: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """softmax(scale q k^T) v inside each document, as `trainwright.kernels.attention` has it. Differentiable."""
    q, k, v = (x.transpose(0, 1) for x in (q_SBHD, k_TBGD, v_TBGD))
    packing = packing_of(edges_BE, len(q), q.shape[1], k.shape[1])
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    o_BSHD, _ = attention_forward(q, k, v, packing.documents_N5, scale, True, None, True)
    return o_BSHD.transpose(0, 1)  # type: ignore[no-any-return]
