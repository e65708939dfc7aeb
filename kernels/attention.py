"""Which implementation of causal attention over packed documents runs, and why.

Every implementation is a function `(q_SBHD, k_TBGD, v_TBGD, edges_BE, scale) -> o_SBHD`.

S: queries, T: keys (T >= S; T > S while decoding, then the queries are the last S positions), B: sequences, H: query
heads, G: key and value heads (G divides H), D: head size, E: edges of documents.
`edges_BE` (int, on the CPU) holds, per sequence, the ascending positions where documents start, then T, repeated to
fill the row: [0, 3, 8, 8] is two documents of 3 and 5 tokens and one of none. `None`: one document a sequence.
A query sees its own and earlier positions of its own document and nothing else, whatever the others hold.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from trainwright.kernels.reference import reference_attention
from trainwright.kernels.sdpa import sdpa_attention

Attention = Callable[[Tensor, Tensor, Tensor, Tensor | None, float | None], Tensor]
Name = Literal["reference", "sdpa"]

_IMPLEMENTATIONS: dict[Name, Attention] = {"reference": reference_attention, "sdpa": sdpa_attention}


@dataclass(frozen=True)
class Choice:
    """An implementation of attention, and the reason why it was taken."""

    name: Name
    why: str
    attend: Attention


def choose(wanted: Literal["auto", "reference", "sdpa"], dtype: torch.dtype) -> Choice:
    """The implementation to use for tensors of `dtype`; `auto` takes the fastest that knows the dtype."""
    if wanted != "auto":
        return Choice(wanted, "asked for by name", _IMPLEMENTATIONS[wanted])
    if dtype in (torch.float32, torch.bfloat16, torch.float16):
        return Choice("sdpa", "torch's fused attention knows this dtype on every device", sdpa_attention)
    return Choice("reference", f"torch's fused attention has no kernel for {dtype}", reference_attention)
