"""Runs the Triton attention in Triton's interpreter and prints, as JSON lines, how far it is from float64.

    TRITON_INTERPRET=1 python -m tests.kernels.portable.matrix PART PARTS

A process of its own: whoever interprets kernels cannot compile them. Cases are dealt to PARTS processes in turn.
"""

import itertools
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainwright.kernels import reference
from trainwright.kernels.packing import Packing

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Case:
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

    @property
    def rows(self) -> int:
        return 1 + max(document[0] for document in self.documents)


def packed(*lengths: int) -> tuple[tuple[int, ...], ...]:
    """Documents one after the other in a single row."""
    starts = itertools.accumulate((0, *lengths[:-1]))
    return tuple((0, start, length, start, length) for start, length in zip(starts, lengths, strict=True))


def cases() -> Iterator[Case]:
    packings = {
        "1": packed(1),
        "16": packed(16),
        "33": packed(33),
        "64": packed(64),
        "65": packed(65),
        "100+37+1+118": packed(100, 37, 1, 118),
        "with a zero-length document": packed(40, 0, 50),
        "5 of 1 and 70": packed(1, 1, 1, 1, 1, 70),
        "more keys than queries": ((0, 0, 20, 0, 90), (1, 0, 40, 10, 41)),
        "more queries than keys": ((0, 0, 90, 0, 20),),
        "gaps": ((0, 0, 33, 0, 33), (0, 40, 30, 44, 36), (1, 5, 64, 2, 70)),
    }
    for (name, documents), dtype in itertools.product(packings.items(), DTYPES):
        yield Case(f"{name}, {dtype}", documents, dtype)
    several = packings["100+37+1+118"]
    for dtype, size in itertools.product(DTYPES, (128, 48)):
        yield Case(f"heads of {size}, {dtype}", several, dtype, head_size=size)
    for heads, groups in ((2, 2), (8, 1), (8, 2)):
        yield Case(f"{heads} heads in {groups} groups", packed(70, 33), heads=heads, groups=groups)
    for name in ("100+37+1+118", "more keys than queries", "gaps"):
        yield Case(f"{name}, not causal", packings[name], causal=False)
        yield Case(f"{name}, window of 20", packings[name], window=20)
        yield Case(f"{name}, window of 1", packings[name], window=1)
        yield Case(f"{name}, with atomics", packings[name], deterministic=False)
    yield Case("large scores", several, large=30.0)
    yield Case("large scores, bf16", several, "bf16", large=30.0)
    yield Case("slices of one tensor", several, slices=True)


def tensors(case: Case, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """q_BSHD, k_BTGD, v_BTGD with room behind the last document."""
    generator = torch.Generator().manual_seed(seed)
    queries = max(document[1] + document[2] for document in case.documents) + 3
    keys = max(document[3] + document[4] for document in case.documents) + 3
    dtype, size = DTYPES[case.dtype], case.head_size
    if case.slices:
        width = case.heads + 2 * case.groups
        whole = torch.randn(case.rows, max(queries, keys), width, size, generator=generator).to(dtype)
        parts = whole.split((case.heads, case.groups, case.groups), dim=2)
        return parts[0], parts[1], parts[2]
    q = torch.randn(case.rows, queries, case.heads, size, generator=generator) * case.large
    k = torch.randn(case.rows, keys, case.groups, size, generator=generator)
    v = torch.randn(case.rows, keys, case.groups, size, generator=generator)
    return q.to(dtype), k.to(dtype), v.to(dtype)


def with_gradients(attend: Any, inputs: tuple[Tensor, ...], dtype: torch.dtype) -> dict[str, Tensor]:
    """Output, log-sum-exp and the gradients of a loss that takes both."""
    leaves = [x.detach().to(dtype).requires_grad_() for x in inputs]
    o, lse = attend(*leaves)
    generator = torch.Generator().manual_seed(1)
    weight_o = torch.randn(o.shape, generator=generator).to(o.dtype)
    weight_lse = torch.randn(lse.shape, generator=generator).to(lse.dtype)
    loss = (o * weight_o).sum() + torch.where(lse.isfinite(), lse * weight_lse, 0.0).sum()
    gradients = torch.autograd.grad(loss, leaves)
    return dict(zip(("o", "lse", "dq", "dk", "dv"), (o, lse, *gradients), strict=True))


def measure(case: Case) -> dict[str, Any]:
    """Per result: largest error and relative norm, ours and plain torch's in the same dtype, and the largest value."""
    from trainwright.kernels.portable.operator import attention_forward

    packing = Packing(torch.tensor(case.documents, dtype=torch.int32))
    scale = case.head_size**-0.5
    inputs = tensors(case)
    options = (scale, case.causal, case.window, case.deterministic)

    def ours(*leaves: Tensor) -> Any:
        return attention_forward(*leaves, packing.documents_N5, *options)

    def plain(*leaves: Tensor) -> Any:
        return reference.attend(*leaves, packing, scale=scale, causal=case.causal, window=case.window)

    exact = with_gradients(plain, inputs, torch.float64)
    got = with_gradients(ours, inputs, DTYPES[case.dtype])
    torchs = with_gradients(plain, inputs, DTYPES[case.dtype])
    errors = {}
    for name, want in exact.items():
        finite = want.isfinite()
        assert torch.equal(finite, got[name].isfinite()), f"{name} is finite elsewhere than in float64"
        want, mine, theirs = (each.detach().double()[finite] for each in (want, got[name], torchs[name]))
        if not want.numel():
            continue
        errors[name] = {
            "error": float((mine - want).abs().max()),
            "of_torch": float((theirs - want).abs().max()),
            "largest": float(want.abs().max()),
            "relative": float((mine - want).norm() / want.norm().clamp(min=1e-300)),
            "relative_of_torch": float((theirs - want).norm() / want.norm().clamp(min=1e-300)),
        }
    return {"case": case.name, "dtype": case.dtype, "errors": errors}


def main() -> None:
    torch.set_num_threads(1)
    part, parts = int(sys.argv[1]), int(sys.argv[2])
    for case in itertools.islice(cases(), part, None, parts):
        print(json.dumps(measure(case)), flush=True)


if __name__ == "__main__":
    main()
