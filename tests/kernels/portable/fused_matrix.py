"""Runs the fused Triton operators in Triton's interpreter and prints, as JSON lines, how far they are from float64.

TRITON_INTERPRET=1 python -m tests.kernels.portable.fused_matrix
"""

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from trainwright.kernels import linear_cross_entropy, rms_norm, rope, swiglu
from trainwright.kernels.correctness import DTYPES, errors_of
from trainwright.kernels.portable import linear_cross_entropy as portable_linear_cross_entropy
from trainwright.kernels.portable import rms_norm as portable_rms_norm
from trainwright.kernels.portable import rope as portable_rope
from trainwright.kernels.portable import swiglu as portable_swiglu

Outputs = tuple[Tensor, ...]


@dataclass(frozen=True)
class Case:
    """An operator's torch version and its Triton version, and inputs that both take."""

    name: str
    plain: Callable[..., Outputs]
    ours: Callable[..., Outputs]
    inputs: tuple[Tensor, ...]


def normal(*shape: int, scale: float = 1.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))) * scale


def apart(*shape: int) -> Tensor:
    """Rows that are slices of longer ones, and leading axes in another order than memory has them."""
    swapped = normal(shape[1], shape[0], *shape[2:-1], shape[-1] + 3).transpose(0, 1)
    return swapped[..., : shape[-1]]


def cases() -> Iterator[Case]:
    yield from norms()
    yield from activations()
    yield from rotations()
    yield from losses()


def norms() -> Iterator[Case]:
    inputs = {
        "1 row of 64": normal(1, 64),
        "41 rows of 37": normal(41, 37),
        "3 x 2 rows of 200": normal(3, 2, 200),
        "rows of 1": normal(5, 1),
        "a row of 1100": normal(2, 1100),
        "rows apart": apart(5, 4, 100),
        "small values": normal(5, 48, scale=1e-3),  # where eps decides
        "large values": normal(5, 48, scale=100.0),
        "zeros": torch.zeros(3, 16),
    }
    for name, x in inputs.items():
        weight = 1.0 + 0.2 * normal(x.shape[-1])
        plain, ours = (partial(_norm, version) for version in (rms_norm, portable_rms_norm))
        yield Case(f"norm, {name}", plain, ours, (x, weight))
        plain, ours = (partial(_add_norm, version) for version in (rms_norm, portable_rms_norm))
        yield Case(f"sum and norm, {name}", plain, ours, (x, 0.7 * x.flip(0) + 0.1, weight))


def _norm(version: Any, x: Tensor, weight: Tensor) -> Outputs:
    return (version.rms_norm(x, weight, 1e-5),)


def _add_norm(version: Any, x: Tensor, residual: Tensor, weight: Tensor) -> Outputs:
    return tuple(version.add_rms_norm(x, residual, weight, 1e-5))


def activations() -> Iterator[Case]:
    inputs = {
        "1 x 2": normal(1, 2),
        "5 x 2 x 37": normal(5, 74),
        "2 x 2 x 1100, two blocks": normal(2, 2200),
        "rows apart": apart(5, 4, 96),
        "large values": normal(5, 64, scale=50.0),
    }
    for name, x in inputs.items():
        plain, ours = (partial(_one, version.swiglu) for version in (swiglu, portable_swiglu))
        yield Case(f"swiglu, {name}", plain, ours, (x,))


def _one(operator: Callable[..., Tensor], *inputs: Tensor) -> Outputs:
    return (operator(*inputs),)


def rotations() -> Iterator[Case]:
    cpu = torch.device("cpu")
    slices = normal(9, 2, 8, 64)
    inputs: dict[str, tuple[Tensor, Tensor | None]] = {
        "1 token": (normal(1, 1, 1, 2), None),
        "heads of 12": (normal(7, 3, 5, 12), None),
        "heads of 128": (normal(40, 1, 2, 128), None),
        "slices of one tensor": (slices[:, :, 2:5], None),
        "batch first": (normal(3, 7, 5, 16).transpose(0, 1), None),
        "documents": (normal(12, 2, 3, 16), rope.positions_of(((0, 5), (0, 1), (0, 6)), cpu)),
        "two runs": (normal(8, 2, 3, 16), rope.positions_of(((4, 4), (24, 4)), cpu)),
        "runs of each sequence": (normal(6, 2, 3, 16), torch.tensor([[0, 9], [1, 8], [2, 0], [0, 1], [1, 2], [31, 3]])),
    }
    for (name, (x, positions)), in_place in itertools.product(inputs.items(), (False, True)):

        def rotate(version: Any, positions: Tensor | None, in_place: bool, x: Tensor) -> Outputs:
            tables = rope.tables(64, x.shape[-1], 10_000.0, x.dtype, cpu)
            cos, sin = tables if positions is not None else (table[: len(x)] for table in tables)
            return (version.rotate(x * 1.0, cos, sin, positions, in_place=in_place),)

        plain, ours = (partial(rotate, version, positions, in_place) for version in (rope, portable_rope))
        yield Case(f"rope, {name}{', in place' if in_place else ''}", plain, ours, (x,))


def losses() -> Iterator[Case]:
    ignored = linear_cross_entropy.IGNORED
    inputs: dict[str, tuple[Tensor, Tensor, float, list[int]]] = {
        "1 token": (normal(1, 16), normal(50, 16), 0.0, [7]),
        "1 entry": (normal(3, 16), normal(1, 16), 0.1, [0, ignored, 0]),
        "some ignored": (normal(7, 16), normal(50, 16), 0.0, [0, 49, ignored, 3, ignored, 3, 11]),
        "all ignored": (normal(3, 16), normal(50, 16), 0.1, [ignored] * 3),
        "two blocks, then one of 1": (normal(5, 8), normal(8193, 8), 0.1, [0, 4095, 4096, 8191, 8192]),
        "large logits": (normal(5, 16, scale=30.0), normal(50, 16), 0.0, [1, 2, 3, 4, 5]),
        "equal logits": (torch.zeros(3, 16), normal(50, 16), 0.1, [0, 25, 49]),
    }
    for name, (hidden, weight, z_loss, labels) in inputs.items():

        def loss(version: Any, labels: list[int], z_loss: float, hidden: Tensor, weight: Tensor) -> Outputs:
            return (version.linear_cross_entropy(hidden, weight, torch.tensor(labels), z_loss=z_loss),)

        versions = linear_cross_entropy, portable_linear_cross_entropy
        plain, ours = (partial(loss, version, labels, z_loss) for version in versions)
        yield Case(f"loss, {name}", plain, ours, (hidden, weight))


def measured(operator: Callable[..., Outputs], inputs: tuple[Tensor, ...], dtype: torch.dtype) -> Outputs:
    """Outputs, and the gradients of a loss that takes them all."""
    leaves = [x.detach().to(dtype).requires_grad_() for x in inputs]
    outputs = operator(*leaves)
    return (*outputs, *torch.autograd.grad(outputs, leaves, [normal(*o.shape).to(o) for o in outputs]))


def measure(case: Case, dtype: str) -> dict[str, Any]:
    """The errors of outputs and gradients, ours and plain torch's in the same dtype."""
    inputs = tuple(x.to(DTYPES[dtype]) for x in case.inputs)
    exact = measured(case.plain, inputs, torch.float64)
    ours, plain = (measured(operator, inputs, DTYPES[dtype]) for operator in (case.ours, case.plain))
    errors = [errors_of(*three) for three in zip(exact, ours, plain, strict=True)]
    return {"case": case.name, "dtype": dtype, "errors": errors}


if __name__ == "__main__":
    torch.set_num_threads(1)
    for case, dtype in itertools.product(cases(), DTYPES):
        print(json.dumps(measure(case, dtype)), flush=True)
