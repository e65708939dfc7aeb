"""The fused operators beside plain torch and torch.compile: time, bytes moved a second, and what the loss takes extra.

N: tokens, H: hidden size, V: vocabulary entries.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from trainwright.kernels import linear_cross_entropy, rms_norm, rope, swiglu
from trainwright.kernels.timing import timed

Operator = Callable[..., Tensor]


@dataclass(frozen=True)
class Work:
    """An operator on given tensors. `forward_bytes` and `backward_bytes` are what it must read and write at least."""

    name: str
    inputs: tuple[Tensor, ...]  # those that get gradients come first
    differentiable: int
    versions: dict[str, Operator]
    forward_bytes: float = 0.0
    backward_bytes: float = 0.0
    flops: float = 0.0  # of the three products of the loss; operators that move bytes have none


def fused_rows(device: torch.device, dtype: torch.dtype, limit_s: float) -> Iterator[dict[str, Any]]:
    """A row an operator, shape and version."""
    for work in works(device, dtype):
        for name, operator in work.versions.items():
            row: dict[str, Any] = {"shape": work.name, "provider": name}
            try:
                row |= _measured(work, operator, device, limit_s)
            except torch.OutOfMemoryError as error:
                row["cannot"] = str(error).splitlines()[0][:160]
            yield row


def works(device: torch.device, dtype: torch.dtype) -> Iterator[Work]:
    from trainwright.kernels.portable import linear_cross_entropy as ours_loss
    from trainwright.kernels.portable import rms_norm as ours_rms_norm
    from trainwright.kernels.portable import rope as ours_rope
    from trainwright.kernels.portable import swiglu as ours_swiglu

    on_gpu = device.type == "cuda"
    tokens, hidden, ffn, heads = (32_768, 4096, 14_336, 32) if on_gpu else (24, 64, 96, 2)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, device=device, dtype=dtype)

    x, weight = random(tokens, hidden), random(hidden)
    size = x.element_size()
    yield Work(
        f"RMSNorm {tokens} x {hidden}",
        (x, weight),
        2,
        _versions(lambda x, w: ours_rms_norm.rms_norm(x, w, 1e-5), _plain_norm, on_gpu)
        | {"torch, own backward": lambda x, w: rms_norm.rms_norm(x, w, 1e-5)},
        forward_bytes=2.0 * x.numel() * size,
        backward_bytes=3.0 * x.numel() * size,
    )
    wide = random(tokens, 2 * ffn)
    yield Work(
        f"SwiGLU {tokens} x {ffn}",
        (wide,),
        1,
        _versions(ours_swiglu.swiglu, _plain_swiglu, on_gpu) | {"torch, own backward": swiglu.swiglu},
        forward_bytes=1.5 * wide.numel() * size,
        backward_bytes=2.5 * wide.numel() * size,
    )
    turned = random(tokens, 1, heads, hidden // heads)
    cos, sin = rope.tables(tokens, hidden // heads, 1e6, dtype, device)
    yield Work(
        f"RoPE {tokens} x {heads} x {hidden // heads}",
        (turned, cos, sin),
        1,
        _versions(ours_rope.rotate, _plain_rotate, on_gpu) | {"torch, own backward": rope.rotate},
        forward_bytes=2.0 * turned.numel() * size,
        backward_bytes=2.0 * turned.numel() * size,
    )
    entries = 92_544 if on_gpu else 160
    for count in (32_768, 262_144) if on_gpu else (24,):
        states, head = random(count, hidden), random(entries, hidden) * hidden**-0.5
        labels = torch.randint(entries, (count,), device=device)
        yield Work(
            f"linear + cross entropy {count} x {entries}",
            (states, head, labels),
            2,
            _versions(ours_loss.linear_cross_entropy, _plain_loss, on_gpu)
            | {"torch, in pieces": linear_cross_entropy.linear_cross_entropy},
            flops=2.0 * count * hidden * entries,
        )


def _versions(ours: Operator, plain: Operator, on_gpu: bool) -> dict[str, Operator]:
    """A process that interprets Triton cannot compile it: there torch.compile is left out."""
    compiled = {"torch.compile": torch.compile(plain)} if on_gpu else {}
    return {"ours": ours, "torch": plain, **compiled}


def _plain_norm(x_NH: Tensor, weight_H: Tensor) -> Tensor:
    wide = x_NH.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-5)).to(x_NH.dtype) * weight_H


def _plain_swiglu(x_N2F: Tensor) -> Tensor:
    gate, up = x_N2F.chunk(2, dim=-1)
    return functional.silu(gate) * up


def _plain_rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def _plain_loss(hidden_NH: Tensor, weight_VH: Tensor, labels_N: Tensor) -> Tensor:
    return functional.cross_entropy((hidden_NH @ weight_VH.t()).float(), labels_N, reduction="none")


def _measured(work: Work, operator: Operator, device: torch.device, limit_s: float) -> dict[str, Any]:
    with torch.no_grad():
        forward = timed(lambda: operator(*work.inputs), device, limit_s=limit_s)
    leaves = [x.detach().requires_grad_() for x in work.inputs[: work.differentiable]]
    rest = work.inputs[work.differentiable :]
    direction = torch.ones_like(operator(*leaves, *rest))

    def both() -> tuple[Tensor, ...]:
        return torch.autograd.grad(operator(*leaves, *rest), leaves, direction)

    row: dict[str, Any] = {}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        both()
        row["extra_mib"] = (torch.cuda.max_memory_allocated(device) - before) / 2**20
    # A graph of an operator in pieces can be walked once, so the backward pass is timed with the forward pass.
    whole = timed(both, device, limit_s=limit_s)
    backward_ms = max(whole.median_ms - forward.median_ms, 1e-6)
    row |= {f"forward_{key}": value for key, value in asdict(forward).items()}
    row |= {"backward_median_ms": backward_ms, "both_spread_ms": whole.spread_ms, "both_runs": whole.runs}
    if work.flops:
        row["forward_tflops"] = work.flops / forward.median_ms / 1e9
        row["backward_tflops"] = 2.0 * work.flops / backward_ms / 1e9
    else:
        row["forward_gbps"] = work.forward_bytes / forward.median_ms / 1e6
        row["backward_gbps"] = work.backward_bytes / backward_ms / 1e6
    return row
