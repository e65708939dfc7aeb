"""Tries every configuration of our own kernels on this machine's GPU, and records those that are right.

    python -m trainwright.kernels.validate [--quick] [--json]

Attention against float64 over packs of every kind, with atomics within the same bounds, fifty backward passes of equal
bits, neighbours full of NaN, and the last queries of a long document; the fused operators against float64. Entries go
to `validated.own_place()`. Without a GPU the same harness runs in Triton's interpreter on small cases, and records
nothing. Exits with 1 if anything is wrong.
"""

import argparse
import itertools
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor

from trainwright.kernels import reference, validated
from trainwright.kernels.correctness import (
    DTYPES,
    Case,
    Errors,
    Provider,
    attention_of,
    complaints,
    errors_of,
    measure,
    packed,
)
from trainwright.kernels.correctness import tensors as tensors_of
from trainwright.kernels.fused import OPERATORS
from trainwright.kernels.packing import Packing
from trainwright.kernels.validate_fused import fused_errors


@dataclass(frozen=True)
class Effort:
    """What is tried. `long` are lengths of single documents, of which the last queries are looked at."""

    dtypes: tuple[str, ...]
    head_sizes: tuple[int, ...]
    long: tuple[int, ...]
    repeats: int
    large_packs: bool
    hidden_sizes: tuple[int, ...]


PROVIDERS: dict[Provider, str] = {"portable": "attention", "hopper": "hopper_attention", "gluon": "hopper_gluon"}
HOPPER_HEAD_SIZES = (64, 128)
DRY_QUICK = Effort(("bf16",), (64,), (200,), 2, False, (96,))
DRY = Effort(("fp32", "fp16", "bf16"), (64,), (200,), 2, False, (96,))
QUICK = Effort(("bf16", "fp16"), (64, 128), (32_768,), 50, False, (2048, 4096))
FULL = Effort(
    ("bf16", "fp16", "fp32"), (64, 96, 128, 256), (32_768, 262_144), 50, True, (2048, 4096, 6144, 8192, 14_336)
)


@dataclass
class Tried:
    """A configuration and all that was wrong with it. `errors`: result -> largest relative norm of its error."""

    operator: str
    dtype: str
    head_size: int
    cases: int = 0
    wrong: list[str] = field(default_factory=list)
    errors: dict[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.operator} {self.dtype}" + (f" D{self.head_size}" if self.head_size else "")

    def take(self, case: str, errors: Errors) -> None:
        self.cases += 1
        self.wrong += [f"{case}: {complaint}" for complaint in complaints(errors, self.dtype)]
        for name, error in errors.items():
            self.errors[name] = max(self.errors.get(name, 0.0), error["relative"])


def attempts(effort: Effort, device: torch.device) -> Iterator[Tried]:
    """Every configuration of the effort, tried; attention in the order in which a fault is the more to be expected."""
    for dtype, operator in itertools.product(effort.dtypes, OPERATORS):
        tried = Tried(operator, dtype, 0)
        for case, errors in fused_errors(operator, dtype, effort.hidden_sizes, device):
            tried.take(case, errors)
        yield tried
    for provider, dtype, head_size in itertools.product(PROVIDERS, effort.dtypes, effort.head_sizes):
        if runs_here(provider, dtype, head_size, device):
            yield attention(provider, dtype, head_size, effort, device)


def attention_cases(dtype: str, head_size: int, large_packs: bool) -> Iterator[Case]:
    """Packs of every kind; with the large ones thousands of tokens and up to a thousand documents."""
    several = packed(100, 37, 1, 118)
    packs = {
        "1 token": packed(1),
        "65 tokens": packed(65),
        "100+37+1+118": several,
        "5 of 1, none and 70": packed(1, 1, 1, 1, 1, 0, 70),
        "more keys than queries": ((0, 0, 20, 0, 90), (1, 0, 40, 10, 41)),
        "more queries than keys": ((0, 0, 90, 0, 20),),
        "gaps": ((0, 0, 33, 0, 33), (0, 40, 30, 44, 36), (1, 5, 64, 2, 70)),
    }
    for name, documents in packs.items():
        yield Case(name, documents, dtype, head_size)
    for causal, window, name in ((False, None, "not causal"), (True, 20, "window of 20")):
        yield Case(name, several, dtype, head_size, causal=causal, window=window)
    yield Case("with atomics", several, dtype, head_size, deterministic=False)
    yield Case("large scores", several, dtype, head_size, large=30.0)
    yield Case("slices of one tensor", several, dtype, head_size, slices=True)
    for heads, groups in ((2, 2), (4, 1), (8, 1)):
        yield Case(f"{heads} heads in {groups} groups", packed(70, 33), dtype, head_size, heads, groups)
    if large_packs:
        spread = packed(37, 2048, 410, 1, 166, 905, 73, 1290, 256, 64)
        for heads, groups in ((4, 4), (16, 2), (16, 1)):
            yield Case(f"5250 tokens, {heads} heads in {groups} groups", spread, dtype, head_size, heads, groups)
        yield Case("5250 tokens, with atomics", spread, dtype, head_size, deterministic=False)
        yield Case("rows of 2048", tuple((row, 0, 2048, 0, 2048) for row in range(2)), dtype, head_size)
        yield Case("1000 short, 1 long", packed(*[7] * 500, 2048, *[3] * 500), dtype, head_size)


def runs_here(provider: Provider, dtype: str, head_size: int, device: torch.device) -> bool:
    """Those for Hopper on its chip alone, in half precision; the one that is no Gluon also in the interpreter."""
    chips = {"portable": None, "hopper": ("sm_90", "cpu"), "gluon": ("sm_90",)}[provider]
    return chips is None or (
        validated.chip(device) in chips and dtype in ("bf16", "fp16") and head_size in HOPPER_HEAD_SIZES
    )


def attention(provider: Provider, dtype: str, head_size: int, effort: Effort, device: torch.device) -> Tried:
    """The provider's attention. Atomics are for the portable kernels alone, windows for all but the one in Gluon."""
    tried = Tried(PROVIDERS[provider], dtype, head_size)
    for case in attention_cases(dtype, head_size, effort.large_packs):
        if (case.deterministic or provider == "portable") and (case.window is None or provider != "gluon"):
            tried.take(case.name, measure(replace(case, provider=provider), device))
    for length in effort.long:
        # Products of fp32 are exact and slow: a quarter of a million tokens would take minutes.
        if dtype != "fp32" or length < 2**16:
            case = Case("", packed(length), dtype, head_size, heads=8, groups=2, provider=provider)
            tried.take(f"the end of {length} tokens", end_of_a_long_document(case, device))
    case = Case("", packed(300, 129, 83) if device.type == "cuda" else packed(33, 40), dtype, head_size)
    if not backward_repeats(replace(case, provider=provider), effort.repeats, device):
        tried.wrong.append(f"{effort.repeats} backward passes are not equal bit by bit")
    for value in (1e4, float("nan"), float("inf")):
        if leaks(Case("", packed(33, 40, 50), dtype, head_size, provider=provider), value, device):
            tried.wrong.append(f"{value} of other documents reaches a document")
    tried.cases += 4
    return tried


def gradients_of(case: Case, q: Tensor, k: Tensor, v: Tensor, go: Tensor) -> tuple[Tensor, ...]:
    """o_BSHD, and the gradients of q, k and v for the gradient `go` of o."""
    leaves = [x.detach().requires_grad_() for x in (q, k, v)]
    o, _ = attention_of(case)(*leaves)
    return (o.detach(), *torch.autograd.grad(o, leaves, go))


def backward_repeats(case: Case, repeats: int, device: torch.device) -> bool:
    """Whether so many passes over equal inputs give equal bits."""
    q, k, v = tensors_of(case, device=device)
    go = torch.randn(q.shape, generator=torch.Generator().manual_seed(2)).to(q)
    first = gradients_of(case, q, k, v, go)
    return all(
        torch.equal(mine, theirs)
        for _ in range(repeats - 1)
        for mine, theirs in zip(gradients_of(case, q, k, v, go), first, strict=True)
    )


def leaks(case: Case, value: float, device: torch.device) -> bool:
    """Whether the second document's results change when all around it holds `value`."""
    _, (_, start, length, _, _), *_ = case.documents
    own = slice(start, start + length)
    q, k, v = tensors_of(case, device=device)
    go = torch.randn(q.shape, generator=torch.Generator().manual_seed(2)).to(q)
    clean = gradients_of(case, q, k, v, go)
    for x in (q, k, v, go):
        x[:, :start] = value
        x[:, own.stop :] = value
    poisoned = gradients_of(case, q, k, v, go)
    return not all(torch.equal(mine[:, own], theirs[:, own]) for mine, theirs in zip(poisoned, clean, strict=True))


def end_of_a_long_document(case: Case, device: torch.device) -> Errors:
    """The errors of the last 64 queries' output and of what they give back to all keys, where the case is one document.

    Queries are aligned to the end of the keys, so float64 needs these 64 rows of scores alone.
    """
    last, length, dtype = 64, case.documents[0][2], DTYPES[case.dtype]
    generator = torch.Generator().manual_seed(length)
    q, go, k, v = (
        torch.randn(1, length, heads, case.head_size, generator=generator).to(device, dtype)
        for heads in (case.heads, case.heads, case.groups, case.groups)
    )
    go[:, :-last] = 0.0
    o, dq, dk, dv = gradients_of(case, q, k, v, go)
    got = dict(zip(("o", "dq", "dk", "dv"), (o[:, -last:], dq[:, -last:], dk, dv), strict=True))
    packing = Packing(torch.tensor([(0, 0, last, 0, length)], dtype=torch.int32))

    def plain(wide: torch.dtype) -> dict[str, Tensor]:
        leaves = [x.detach().to(wide).requires_grad_() for x in (q[:, -last:], k, v)]
        o, _ = reference.attend(leaves[0], leaves[1], leaves[2], packing)
        return dict(zip(got, (o, *torch.autograd.grad(o, leaves, go[:, -last:].to(wide))), strict=True))

    exact, theirs = plain(torch.float64), plain(dtype)
    return {name: errors_of(want, got[name], theirs[name]) for name, want in exact.items()}


def write(tried: list[Tried], device: torch.device) -> Path:
    """The right configurations were recorded, what was wrong lost its entry; the file."""
    configurations = [
        validated.configuration(each.operator, DTYPES[each.dtype], each.head_size, device) for each in tried
    ]
    today, name = datetime.now(UTC).strftime("%Y-%m-%d"), torch.cuda.get_device_name(device)
    right = [
        validated.Entry(configuration, today, name, torch.__version__, each.errors)
        for configuration, each in zip(configurations, tried, strict=True)
        if not each.wrong
    ]
    place = validated.own_place()
    validated.record(place, configurations, right)
    return place


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the usual head sizes and dtypes, no large packs")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    on_gpu = torch.cuda.is_available()
    interprets = os.environ.get("TRITON_INTERPRET") == "1"
    if on_gpu == interprets:
        parser.error("set TRITON_INTERPRET=1 on a CPU, and unset it where there is a GPU")
    device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
    effort = {(True, True): QUICK, (True, False): FULL, (False, True): DRY_QUICK, (False, False): DRY}[
        on_gpu, arguments.quick
    ]
    tried, place = [], None
    for each in attempts(effort, device):
        tried.append(each)
        if on_gpu:  # at once: a kernel that hangs or faults takes the process with it
            place = write([each], device)
        if not arguments.json:
            worst = max(each.errors.items(), key=lambda item: item[1])
            verdict = "; ".join(each.wrong) or f"right, at most {worst[1]:.1e} off in norm ({worst[0]})"
            print(f"{each.name:20} {each.cases:3} cases  {verdict}", flush=True)
    if arguments.json:
        rows = [asdict(each) for each in tried]
        print(json.dumps({"device": device.type, "recorded": str(place) if place else None, "tried": rows}))
    elif place is None:
        print("a dry run in Triton's interpreter: the harness works, and nothing was validated for a GPU")
    else:
        print(f"recorded in {place}")
    return 1 if any(each.wrong for each in tried) else 0


if __name__ == "__main__":
    sys.exit(main())
