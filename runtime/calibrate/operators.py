"""Speed of the operators that a training step is made of, by their size, on this process's device.

Each measurement is a `Point`: how much work one call does, how long it takes. Work is counted as the cost model counts
it: FLOPs of products as 2 m n k, of attention those of the causal half, of memory-bound operators the bytes that a
kernel reads and writes.

M: tokens, K: features in, N: features out; S: positions, B: sequences, H: query heads, G: key heads, D: head size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from trainwright.kernels.attention import choose
from trainwright.kernels.rms_norm import rms_norm
from trainwright.kernels.swiglu import swiglu
from trainwright.runtime import host
from trainwright.runtime.calibrate.clock import seconds

Precision = Literal["bf16", "fp32"]
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True)
class Point:
    """One measurement: `work` in FLOPs or bytes."""

    what: str
    work: float
    time_s: float

    @property
    def rate(self) -> float:
        """FLOP/s or bytes per second."""
        return self.work / self.time_s


def product(tokens: int, features: int, out: int, precision: Precision, limit_s: float) -> Point:
    """A linear layer's three products, forward, and backward to its input and to its weight, as one of mean speed."""
    x_MK, w_NK, g_MN = (_random(shape, precision) for shape in ((tokens, features), (out, features), (tokens, out)))
    forms = (lambda: x_MK @ w_NK.t(), lambda: g_MN @ w_NK, lambda: g_MN.t() @ x_MK)
    time_s = sum(seconds(form, limit_s / 3) for form in forms) / 3
    return Point(f"product {tokens} x {features} x {out} {precision}", 2.0 * tokens * features * out, time_s)


def attention(
    length: int, batch: int, heads: int, size: int, precision: Precision, limit_s: float
) -> tuple[Point, Point]:
    """Causal attention by the kernel that training uses, with four query heads a key head: forward, backward."""
    groups = max(1, heads // 4)
    q, k, v = (_random((length, batch, count, size), precision).requires_grad_() for count in (heads, groups, groups))
    attend = choose("auto", DTYPES[precision], size, q.device).attend
    gradient = torch.ones_like(q)

    def both() -> None:
        torch.autograd.grad(attend(q, k, v, None, None), (q, k, v), gradient)

    with torch.no_grad():
        forward_s = seconds(lambda: attend(q, k, v, None, None), limit_s / 3)
    backward_s = max(seconds(both, limit_s * 2 / 3) - forward_s, forward_s / 10)
    flops = 2.0 * batch * heads * size * length**2
    what = f"attention {batch} x {length} {precision}"
    return Point(f"{what} forward", flops, forward_s), Point(f"{what} backward", 2.5 * flops, backward_s)


def memory_bound(tokens: int, features: int, precision: Precision, limit_s: float) -> list[Point]:
    """One kernel each of copy, addition, norm and activation over `tokens` rows, forward.

    Norm and activation are chains of kernels: of three reads and writes and two of rows in four, of five halves in
    two (`kernels/rms_norm.py`, `kernels/swiglu.py`). A Point is their mean kernel, with the bytes that it moves.
    """
    x, y = _random((tokens, features), precision), _random((tokens, features), precision)
    weight = _random((features,), precision)
    size = float(x.numel() * x.element_size())
    works: dict[str, tuple[Callable[[], Tensor], float, int]] = {
        "copy": (lambda: y.copy_(x), 2.0, 1),
        "addition": (lambda: x + y, 3.0, 1),
        "norm": (lambda: rms_norm(x, weight, 1e-5), 7.0, 4),
        "activation": (lambda: swiglu(x), 2.5, 2),
    }
    with torch.no_grad():
        return [
            Point(f"{name} {tokens} x {features}", moved * size / kernels, seconds(work, limit_s / 4) / kernels)
            for name, (work, moved, kernels) in works.items()
        ]


def launch_s(limit_s: float) -> float:
    """Seconds from one operator to the next where there is next to nothing to compute: forward and backward."""
    x = _random((4, 8), "fp32").requires_grad_()
    factor = _random((4, 8), "fp32")
    count = 50

    def chain() -> None:
        y = x
        for _ in range(count):
            y = y * factor
        torch.autograd.grad(y.sum(), x)

    return seconds(chain, limit_s) / (2 * count)


def _random(shape: tuple[int, ...], precision: Precision) -> Tensor:
    return torch.randn(shape, device=host.device()).to(DTYPES[precision])
