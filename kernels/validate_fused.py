"""The fused Triton operators against plain torch in float64.

N: tokens, H: features, V: vocabulary entries.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from trainwright.kernels import fused, linear_cross_entropy, rope
from trainwright.kernels.correctness import DTYPES, Errors, errors_of

ENTRIES = 9001  # three blocks of the loss's forward pass, five of its backward pass; rows that nothing aligns


def fused_errors(
    operator: fused.Operator, dtype: str, hidden_sizes: tuple[int, ...], device: torch.device
) -> Iterator[tuple[str, Errors]]:
    """Name and errors of each case of the operator, forward and backward."""
    plain, ours = (_version(operator, is_ours) for is_ours in (False, True))
    for hidden in hidden_sizes:
        for tokens in (1, 37, 512 if device.type == "cuda" else 40):
            inputs = [x.to(device, DTYPES[dtype]) for x in _inputs(operator, tokens, hidden)]
            exact = _with_gradients(plain, inputs, torch.float64)
            got = _with_gradients(ours, inputs, DTYPES[dtype])
            theirs = _with_gradients(plain, inputs, DTYPES[dtype])
            errors = {
                f"{operator} result {place}": errors_of(*three)
                for place, three in enumerate(zip(exact, got, theirs, strict=True))
            }
            yield f"{tokens} x {hidden}", errors


def _version(operator: fused.Operator, is_ours: bool) -> Callable[..., tuple[Tensor, ...]]:
    module: Any = fused.Version("portable" if is_ours else "torch", "").module(operator)
    if operator == "rms_norm":
        return lambda x, residual, weight: (*module.add_rms_norm(x, residual, weight, 1e-5),)
    if operator == "swiglu":
        return lambda x: (module.swiglu(x),)
    if operator == "linear_cross_entropy":
        return lambda hidden, weight: (module.linear_cross_entropy(hidden, weight, _labels(hidden), z_loss=1e-2),)

    def rotate(x: Tensor) -> tuple[Tensor, ...]:
        cos, sin = rope.tables(len(x), x.shape[-1], 10_000.0, x.dtype, x.device)
        return (module.rotate(x, cos, sin),)

    return rotate


def _inputs(operator: fused.Operator, tokens: int, hidden: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(tokens + hidden)
    if operator == "rms_norm":
        x, residual = (torch.randn(tokens, hidden, generator=generator) for _ in range(2))
        return [x, residual, 1.0 + 0.2 * torch.randn(hidden, generator=generator)]
    if operator == "swiglu":
        return [torch.randn(tokens, 2 * hidden, generator=generator)]
    if operator == "linear_cross_entropy":
        hidden = min(hidden, 256)  # its passes see logits alone
        return [torch.randn(rows, hidden, generator=generator) * hidden**-0.25 for rows in (tokens, ENTRIES)]
    return [torch.randn(tokens, 2, hidden // 32, 32, generator=generator)]


def _labels(hidden_NH: Tensor) -> Tensor:
    """Any, and every fifth ignored, but of a single token."""
    labels_N = torch.arange(len(hidden_NH), device=hidden_NH.device) * 677 % ENTRIES
    labels_N[4::5] = linear_cross_entropy.IGNORED
    return labels_N


def _with_gradients(
    operator: Callable[..., tuple[Tensor, ...]], inputs: list[Tensor], dtype: torch.dtype
) -> list[Tensor]:
    """Outputs, and the gradients of a loss that takes them all."""
    leaves = [x.detach().to(dtype).requires_grad_() for x in inputs]
    outputs = operator(*leaves)
    weights = [torch.randn(o.shape, generator=torch.Generator().manual_seed(5)).to(o) for o in outputs]
    gradients = torch.autograd.grad(outputs, leaves, weights)
    return [x.detach() for x in (*outputs, *gradients)]
