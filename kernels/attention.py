"""Which implementation of causal attention over packed documents runs, and why.

Every implementation is a function `(q_SBHD, k_TBGD, v_TBGD, edges_BE, scale) -> o_SBHD`.

S: queries, T: keys (T >= S; T > S while decoding, then the queries are the last S positions), B: sequences, H: query
heads, G: key and value heads (G divides H), D: head size, E: edges of documents.
`edges_BE` (int, on the CPU) holds, per sequence, the ascending positions where documents start, then T, repeated to
fill the row: [0, 3, 8, 8] is two documents of 3 and 5 tokens and one of none. `None`: one document a sequence.
A query sees its own and earlier positions of its own document and nothing else, whatever the others hold.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from trainwright.kernels import flash_attn, validated
from trainwright.kernels.reference import reference_attention
from trainwright.kernels.sdpa import sdpa_attention

Attention = Callable[[Tensor, Tensor, Tensor, Tensor | None, float | None], Tensor]
Name = Literal["reference", "sdpa", "portable", "hopper", "flash-attn"]
Wanted = Literal["auto", "reference", "sdpa", "portable", "hopper", "flash-attn"]

_HALVES = (torch.bfloat16, torch.float16)
_FLOATS = (*_HALVES, torch.float32)
_PORTABLE_HEAD_SIZE = 256  # the largest
_HOPPER_HEAD_SIZES = (64, 128)
_HOPPER_CHIP = "sm_90"
_IN_WORDS = {"portable": "portable", "hopper": "Hopper"}
_VALIDATE = "`trainwright kernels validate` tries them"


class KernelMissing(Exception):
    """The kernel that was asked for cannot run here. The text is one sentence for the user."""


@dataclass(frozen=True)
class Choice:
    """An implementation of attention, and the reason why it was taken. A `warning` is to be told once."""

    name: Name
    why: str
    attend: Attention
    warning: str | None = None


def choose(wanted: Wanted, dtype: torch.dtype, head_size: int, device: torch.device) -> Choice:
    """The implementation to use for tensors of `dtype` on `device`.

    Our own kernels run on a GPU only as they were validated there; else sdpa takes their place, with a warning, and the
    portable ones that of those for Hopper. Raises KernelMissing for one asked for by name whose package is not
    installed, or that does not know chip, dtype or head size.
    """
    obstacle = missing(wanted, device.type, dtype, head_size)
    if obstacle is not None:
        raise KernelMissing(obstacle)
    if wanted == "auto":
        return _best(dtype, head_size, device)
    if wanted == "reference":
        return Choice(wanted, "asked for by name", reference_attention)
    if wanted == "sdpa":
        return Choice(wanted, "asked for by name", sdpa_attention)
    if wanted == "flash-attn":
        return Choice(wanted, "asked for by name", flash_attn.flash_attention)
    if wanted == "portable" and device.type == "cpu":
        return _portable("asked for by name; in Triton's interpreter: for checking, not for speed")
    refusal = _refusal(wanted, dtype, head_size, device)
    if refusal is None:
        why = "asked for by name"
        return _portable(why) if wanted == "portable" else _hopper(why, dtype, head_size, device)
    if wanted == "hopper" and _refusal("portable", dtype, head_size, device) is None:
        instead = _portable("in place of the Hopper kernels")
        return replace(instead, warning=f"{refusal}: attention is the portable kernels' instead")
    return _instead(refusal, wanted)


def missing(wanted: Wanted, device: str, dtype: torch.dtype, head_size: int) -> str | None:
    """Why `wanted` cannot run on a "cpu" or "cuda" device at all, in a sentence; None if it can. Imports no kernel."""
    if wanted == "portable":
        if not validated.has_triton():
            return '`attention = "portable"` needs triton, which is not installed: pip install triton'
        if head_size > _PORTABLE_HEAD_SIZE or dtype not in _FLOATS:
            return f"the portable kernels know no {validated.name_of(dtype)} heads of {head_size}"
    if wanted == "hopper":
        chip = validated.chip(torch.device(device)) if device == "cpu" or torch.cuda.is_available() else _HOPPER_CHIP
        if chip != _HOPPER_CHIP:
            there = "a CPU" if chip == "cpu" else chip
            return f'`attention = "hopper"` needs a GPU of {_HOPPER_CHIP} (H100, H200), and this is {there}'
        if not validated.has_triton():
            return '`attention = "hopper"` needs triton, which is not installed: pip install triton'
        if head_size not in _HOPPER_HEAD_SIZES or dtype not in _HALVES:
            return f"the Hopper kernels know no {validated.name_of(dtype)} heads of {head_size}"
    if wanted == "flash-attn":
        if device == "cpu":
            return '`attention = "flash-attn"` needs a GPU'
        if not flash_attn.is_installed():
            return '`attention = "flash-attn"` needs flash-attn, which is not installed: pip install flash-attn'
        if head_size > flash_attn.HEAD_SIZE or dtype not in flash_attn.DTYPES:
            return f"flash-attn knows no {validated.name_of(dtype)} heads of {head_size}"
    return None


def _best(dtype: torch.dtype, head_size: int, device: torch.device) -> Choice:
    if dtype not in _FLOATS:
        return Choice("reference", f"torch's fused attention has no kernel for {dtype}", reference_attention)
    if device.type == "cpu":
        return Choice("sdpa", "torch's fused attention is the fastest on a CPU", sdpa_attention)
    if dtype not in _HALVES:
        return Choice("sdpa", "our own kernels are made for half precision", sdpa_attention)
    if _refusal("hopper", dtype, head_size, device) is None:
        return _hopper("validated on this chip, which it is made for", dtype, head_size, device)
    refusal = _refusal("portable", dtype, head_size, device)
    if refusal is None:
        return _portable("validated on this chip, and reads packed documents where they lie")
    if missing("flash-attn", device.type, dtype, head_size) is None:
        why = f"installed, and reads packed documents where they lie; {refusal}"
        return Choice("flash-attn", why, flash_attn.flash_attention)
    return _instead(refusal, "portable")


def _portable(why: str) -> Choice:
    from trainwright.kernels.portable.operator import portable_attention  # imports triton

    return Choice("portable", why, portable_attention)


def _hopper(why: str, dtype: torch.dtype, head_size: int, device: torch.device) -> Choice:
    from trainwright.kernels.hopper.operator import hopper_attention  # imports triton

    in_gluon = validated.is_validated(validated.configuration("hopper_gluon", dtype, head_size, device))
    attend = partial(hopper_attention, gluon=in_gluon)
    return Choice("hopper", f"{why}; the forward pass in {'Gluon' if in_gluon else 'Triton'}", attend)


def _instead(refusal: str, wanted: Literal["portable", "hopper"]) -> Choice:
    warning = f"{refusal}: attention is torch's scaled_dot_product_attention instead"
    return Choice("sdpa", f"in place of the {_IN_WORDS[wanted]} kernels", sdpa_attention, warning)


def _refusal(
    wanted: Literal["portable", "hopper"], dtype: torch.dtype, head_size: int, device: torch.device
) -> str | None:
    """Why these kernels of ours may not run on this GPU; None if they may."""
    obstacle = missing(wanted, device.type, dtype, head_size)
    if obstacle is not None:
        return obstacle
    operator = "attention" if wanted == "portable" else "hopper_attention"
    mine = validated.configuration(operator, dtype, head_size, device)
    if validated.is_validated(mine):
        return None
    what = f"{mine.dtype} heads of {head_size} on {mine.chip} with Triton {mine.triton}"
    return f"the {_IN_WORDS[wanted]} kernels were not validated for {what} ({_VALIDATE})"
