"""Runs a Triton attention in Triton's interpreter and prints, as JSON lines, how far it is from float64.

    TRITON_INTERPRET=1 python -m tests.kernels.portable.matrix portable|hopper PART PARTS

A process of its own: whoever interprets kernels cannot compile them. Cases are dealt to PARTS processes in turn.
"""

import itertools
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import cast

import torch

from trainwright.kernels.correctness import DTYPES, Case, Provider, measure, packed


def cases(provider: Provider) -> Iterator[Case]:
    """What the provider knows of the matrix; the kernels for Hopper know half precision and heads of 64 and 128."""
    if provider == "portable":
        yield from _matrix()
        return
    taken = set()
    for case in _matrix():
        mine = replace(case, provider=provider, dtype="fp16" if case.dtype == "fp32" else case.dtype)
        if case.head_size in (64, 128) and case.deterministic and (what := replace(mine, name="")) not in taken:
            taken.add(what)
            yield mine


def _matrix() -> Iterator[Case]:
    packings = {
        "1": packed(1),
        "16": packed(16),
        "33": packed(33),
        "64": packed(64),
        "65": packed(65),
        "100+37+1+118": packed(100, 37, 1, 118),
        "with a zero-length document": packed(40, 0, 50),
        "no keys, no queries": ((0, 0, 30, 0, 0), (0, 30, 40, 0, 40), (0, 70, 0, 40, 20)),
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


def main() -> None:
    torch.set_num_threads(1)
    provider, part, parts = cast(Provider, sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    for case in itertools.islice(cases(provider), part, None, parts):
        print(json.dumps({"case": case.name, "dtype": case.dtype, "errors": measure(case)}), flush=True)


if __name__ == "__main__":
    main()
