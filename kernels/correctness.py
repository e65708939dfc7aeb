"""How far our kernels are from float64, in Triton's interpreter or on a GPU, and how far they may be.

A result is right if its largest error is at most twice that of plain torch in the same dtype (the bound of
flash-attention's own tests), and its relative norm small for that dtype.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from trainwright.kernels import reference
from trainwright.kernels.packing import Packing

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# Of the error's norm. Scores thirty times as large cost digits, which plain torch loses as well.
RELATIVE = {"fp32": 5e-6, "fp16": 1e-3, "bf16": 6e-3}
CPU = torch.device("cpu")

Provider = Literal["portable", "hopper", "gluon"]  # gluon: the hopper attention with that forward pass
Errors = dict[str, dict[str, float]]  # result -> what `errors_of` says


@dataclass(frozen=True)
class Case:
    """A pack and what attends over it."""

    name: str
    documents: tuple[tuple[int, ...], ...]  # row, start and length of queries, start and length of keys
    dtype: str = "fp32"
    head_size: int = 64
    heads: int = 4
    groups: int = 2
    causal: bool = True
    window: int | None = None
    deterministic: bool = True
    large: float = 1.0  # factor of the scores
    slices: bool = False  # q, k and v are slices of one tensor
    provider: Provider = "portable"

    @property
    def rows(self) -> int:
        return 1 + max(document[0] for document in self.documents)

    @property
    def packing(self) -> Packing:
        return Packing(torch.tensor(self.documents, dtype=torch.int32))


def packed(*lengths: int) -> tuple[tuple[int, ...], ...]:
    """Documents one after the other in a single row."""
    starts = itertools.accumulate((0, *lengths[:-1]))
    return tuple((0, start, length, start, length) for start, length in zip(starts, lengths, strict=True))


def tensors(case: Case, seed: int = 0, device: torch.device = CPU) -> tuple[Tensor, Tensor, Tensor]:
    """q_BSHD, k_BTGD, v_BTGD with room behind the last document."""
    generator = torch.Generator().manual_seed(seed)
    queries = max(document[1] + document[2] for document in case.documents) + 3
    keys = max(document[3] + document[4] for document in case.documents) + 3
    dtype, size = DTYPES[case.dtype], case.head_size
    if case.slices:
        width = case.heads + 2 * case.groups
        whole = torch.randn(case.rows, max(queries, keys), width, size, generator=generator).to(device, dtype)
        parts = torch.split(whole, [case.heads, case.groups, case.groups], dim=2)
        return parts[0], parts[1], parts[2]
    q = torch.randn(case.rows, queries, case.heads, size, generator=generator) * case.large
    k = torch.randn(case.rows, keys, case.groups, size, generator=generator)
    v = torch.randn(case.rows, keys, case.groups, size, generator=generator)
    return q.to(device, dtype), k.to(device, dtype), v.to(device, dtype)


def with_gradients(attend: Any, inputs: tuple[Tensor, ...], dtype: torch.dtype) -> dict[str, Tensor]:
    """Output, log-sum-exp and the gradients of a loss that takes both."""
    leaves = [x.detach().to(dtype).requires_grad_() for x in inputs]
    o, lse = attend(*leaves)
    generator = torch.Generator().manual_seed(1)
    weight_o = torch.randn(o.shape, generator=generator).to(o)
    weight_lse = torch.randn(lse.shape, generator=generator).to(lse)
    loss = (o * weight_o).sum() + torch.where(lse.isfinite(), lse * weight_lse, 0.0).sum()
    gradients = torch.autograd.grad(loss, leaves)
    return dict(zip(("o", "lse", "dq", "dk", "dv"), (o, lse, *gradients), strict=True))


def attention_of(case: Case) -> Callable[..., Any]:
    """The case's attention over its pack: (q_BSHD, k_BTGD, v_BTGD) -> (o_BSHD, lse_BHS)."""
    options = (case.packing.documents_N5, case.head_size**-0.5, case.causal, case.window)
    if case.provider == "portable":
        from trainwright.kernels.portable import operator as portable

        return lambda q, k, v: portable.attention_forward(q, k, v, *options, case.deterministic)
    from trainwright.kernels.hopper import operator as hopper

    return lambda q, k, v: hopper.attention_forward(q, k, v, *options, case.provider == "gluon")


def measure(case: Case, device: torch.device = CPU) -> Errors:
    """The errors of output, log-sum-exp and gradients, by name."""
    inputs = tensors(case, device=device)
    packing, scale = case.packing, case.head_size**-0.5

    def plain(q: Tensor, k: Tensor, v: Tensor) -> Any:
        return reference.attend(q, k, v, packing, scale=scale, causal=case.causal, window=case.window)

    exact = with_gradients(plain, inputs, torch.float64)
    got = with_gradients(attention_of(case), inputs, DTYPES[case.dtype])
    theirs = with_gradients(plain, inputs, DTYPES[case.dtype])
    return {name: errors_of(want, got[name], theirs[name]) for name, want in exact.items() if want.isfinite().any()}


def errors_of(want: Tensor, got: Tensor, plain: Tensor) -> dict[str, float]:
    """Largest error and relative norm, ours and plain torch's in the same dtype, and the largest value.

    Infinite errors where ours is finite and `want` is not, or the other way round.
    """
    finite = want.isfinite()
    if not torch.equal(finite, got.isfinite()):
        return dict.fromkeys(("error", "relative"), float("inf")) | dict.fromkeys(
            ("of_torch", "largest", "relative_of_torch"), 0.0
        )
    want, got, plain = (each.detach().double()[finite] for each in (want, got, plain))
    norm = want.norm().clamp(min=1e-300)
    return {
        "error": float((got - want).abs().max()),
        "of_torch": float((plain - want).abs().max()),
        "largest": float(want.abs().max()),
        "relative": float((got - want).norm() / norm),
        "relative_of_torch": float((plain - want).norm() / norm),
    }


def complaints(errors: Errors, dtype: str) -> list[str]:
    """What of these errors is more than it may be; nothing if all is right."""
    found = []
    for name, error in errors.items():
        if not error["error"] <= (allowed := 2 * error["of_torch"] + 1e-5 * error["largest"]):
            found.append(f"{name} is off by {error['error']:.2e}, of {allowed:.2e} allowed")
        if not error["relative"] <= (allowed := max(RELATIVE[dtype], 6 * error["relative_of_torch"])):
            found.append(f"{name} is off by {error['relative']:.2e} in norm, of {allowed:.2e} allowed")
    return found
