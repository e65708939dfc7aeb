"""Our kernels beside others in one process, on random data.

    python -m trainwright.kernels.bench [--op attention|fused|all] [-o FILE]

Medians, forward and backward; TFLOP/s of what documents let tokens see (a product of q and k and one of p and v
forward, 2.5 times as much backward), and cuDNN's time over each. Without a GPU a few small shapes run through the very
same code in Triton's interpreter: that the harness works is all that shows, and no file is written unless one is named.
"""

import argparse
import json
import math
import os
import platform
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from trainwright.kernels import flash_attn, validated
from trainwright.kernels.bench_fused import fused_rows
from trainwright.kernels.sdpa import sdpa_attention
from trainwright.kernels.timing import Timing, timed

Provider = Callable[[Tensor, Tensor, Tensor], Tensor]  # q_SBHD, k_SBGD, v_SBGD -> o_SBHD


@dataclass(frozen=True)
class Shape:
    """Rows of tokens, cut into documents of these lengths; none: a row is a document."""

    name: str
    tokens: int
    rows: int
    heads: int
    groups: int
    head_size: int
    documents: tuple[int, ...] = ()

    @property
    def forward_flops(self) -> float:
        pairs = sum(length * (length + 1) / 2 for length in self.documents or (self.tokens,))
        return 4.0 * self.rows * self.heads * self.head_size * pairs

    @property
    def edges_BE(self) -> Tensor | None:
        if not self.documents:
            return None
        edges = torch.tensor((0, *self.documents), dtype=torch.int32).cumsum(0, dtype=torch.int32)
        return edges.expand(self.rows, -1)


def shapes(on_gpu: bool) -> Iterator[Shape]:
    """On a GPU 32k tokens in rows of 4k to 32k, packed ones, and one document of 256k; else a few of a hundred."""
    if not on_gpu:
        yield Shape("dense 96", 96, 1, 2, 1, 64)
        yield Shape("packed 96", 96, 1, 2, 1, 64, (40, 1, 55))
        return
    for size in (64, 128):
        heads = 2048 // size
        groups = heads // 4
        for length in (4096, 8192, 16_384, 32_768):
            yield Shape(f"dense {length // 1024}k D{size}", length, 32_768 // length, heads, groups, size)
        yield Shape(f"packed 32k, mean 4k D{size}", 32_768, 1, heads, groups, size, _documents(32_768, 4096))
        long = 32_768 - 1000 * 8
        yield Shape(f"packed 32k, 1000 of 8 and one D{size}", 32_768, 1, heads, groups, size, (*[8] * 1000, long))
        yield Shape(f"dense 256k D{size}", 262_144, 1, 8, 2, size)


def _documents(tokens: int, mean: int) -> tuple[int, ...]:
    """Log-normal lengths of that mean (sigma 1), the same every time, that fill the row."""
    source = random.Random(0)
    lengths: list[int] = []
    while (left := tokens - sum(lengths)) > 0:
        lengths.append(min(left, max(1, round(source.lognormvariate(math.log(mean) - 0.5, 1.0)))))
    return tuple(lengths)


def providers(shape: Shape, device: torch.device) -> dict[str, Callable[[], Provider]]:
    """Each makes an attention over the shape. cuDNN and flash of torch know no documents: they see whole rows."""
    edges = shape.edges_BE
    made: dict[str, Callable[[], Provider]] = {
        "ours": lambda: _ours(edges),
        "cudnn": lambda: _fused(SDPBackend.CUDNN_ATTENTION),
        "cudnn, heads repeated": lambda: _fused(SDPBackend.CUDNN_ATTENTION, repeated=shape.heads // shape.groups),
        "flash": lambda: _fused(SDPBackend.FLASH_ATTENTION),
        "flex": lambda: _flex(shape, device),
    }
    if validated.chip(device) in ("sm_90", "cpu"):
        made["ours, hopper"] = lambda: _hopper(edges, gluon=False)
    if validated.chip(device) == "sm_90":
        made["ours, hopper, gluon"] = lambda: _hopper(edges, gluon=True)
    if edges is not None:
        made["sdpa per document"] = lambda: lambda q, k, v: sdpa_attention(q, k, v, edges)
    if flash_attn.is_installed():
        made["flash-attn"] = lambda: lambda q, k, v: flash_attn.flash_attention(q, k, v, edges)
    return made


def _ours(edges: Tensor | None) -> Provider:
    from trainwright.kernels.portable.operator import portable_attention

    return lambda q, k, v: portable_attention(q, k, v, edges)


def _hopper(edges: Tensor | None, *, gluon: bool) -> Provider:
    from trainwright.kernels.hopper.operator import hopper_attention

    return lambda q, k, v: hopper_attention(q, k, v, edges, gluon=gluon)


def _fused(backend: SDPBackend, repeated: int = 1) -> Provider:
    """torch's own by that backend; `repeated`: keys and values are copied for each head of a group first."""

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if repeated > 1:
            k, v = (x.repeat_interleave(repeated, dim=2) for x in (k, v))
        q, k, v = (x.permute(1, 2, 0, 3) for x in (q, k, v))
        with sdpa_kernel(backend):
            o = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return o.permute(2, 0, 1, 3)

    return attend


def _flex(shape: Shape, device: torch.device) -> Provider:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    lengths = torch.tensor(shape.documents or (shape.tokens,), device=device)
    document = torch.repeat_interleave(torch.arange(len(lengths), device=device), lengths)

    def sees(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (q >= k) & (document[q] == document[k])

    mask = create_block_mask(
        sees, None, None, shape.tokens, shape.tokens, device=str(device), _compile=_compiles(device)
    )
    attention: Any = torch.compile(flex_attention) if _compiles(device) else flex_attention

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        o: Tensor = attention(*(x.permute(1, 2, 0, 3) for x in (q, k, v)), block_mask=mask, enable_gqa=True)
        return o.permute(2, 0, 1, 3)

    return attend


def _compiles(device: torch.device) -> bool:
    """A process that interprets Triton cannot compile it."""
    return device.type == "cuda"


def attention_rows(device: torch.device, dtype: torch.dtype, limit_s: float) -> Iterator[dict[str, Any]]:
    """A row a shape and provider. What a provider cannot do is said in its row, and the others go on."""
    for shape in shapes(device.type == "cuda"):
        generator = torch.Generator(device).manual_seed(0)
        q, k, v, go = (
            torch.randn(
                shape.tokens, shape.rows, heads, shape.head_size, generator=generator, device=device, dtype=dtype
            )
            for heads in (shape.heads, shape.groups, shape.groups, shape.heads)
        )
        rows = []
        for name, make in providers(shape, device).items():
            row: dict[str, Any] = {"shape": shape.name, "provider": name}
            try:
                attend = make()
                row |= _figures("forward", _forward(attend, (q, k, v), device, limit_s), shape.forward_flops)
                backward = _backward(attend, (q, k, v), go, device, limit_s)
                row |= _figures("backward", backward, 2.5 * shape.forward_flops)
            except (RuntimeError, ImportError, ValueError, torch._dynamo.exc.TorchDynamoException) as error:
                row["cannot"] = str(error).strip().splitlines()[0][:160]
            rows.append(row)
        yield from _beside_cudnn(rows)


def _forward(attend: Provider, inputs: tuple[Tensor, ...], device: torch.device, limit_s: float) -> Timing:
    with torch.no_grad():
        return timed(lambda: attend(inputs[0], inputs[1], inputs[2]), device, limit_s=limit_s)


def _backward(attend: Provider, inputs: tuple[Tensor, ...], go: Tensor, device: torch.device, limit_s: float) -> Timing:
    """Alone, over one and the same graph."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    o = attend(leaves[0], leaves[1], leaves[2])
    return timed(lambda: torch.autograd.grad(o, leaves, go, retain_graph=True), device, limit_s=limit_s)


def _figures(what: str, timing: Timing, flops: float) -> dict[str, Any]:
    figures: dict[str, Any] = {f"{what}_{key}": value for key, value in asdict(timing).items()}
    return figures | {f"{what}_tflops": flops / timing.median_ms / 1e9}


def _beside_cudnn(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with cuDNN's time over their own: of its best form, where it has any."""
    for what in ("forward", "backward"):
        known = [row for row in rows if f"{what}_median_ms" in row]
        times_ms = [row[f"{what}_median_ms"] for row in known if row["provider"].startswith("cudnn")]
        for row in known if times_ms else ():
            row[f"{what}_of_cudnn"] = min(times_ms) / row[f"{what}_median_ms"]
    return rows


def _line(row: dict[str, Any]) -> str:
    parts = []
    for what in ("forward", "backward"):
        if f"{what}_median_ms" in row:
            part = f"{what} {row[f'{what}_median_ms']:9.3f} ms"
            part += f" {row[f'{what}_tflops']:6.1f} TFLOP/s" if f"{what}_tflops" in row else ""
            part += f" {row[f'{what}_gbps']:7.1f} GB/s" if f"{what}_gbps" in row else ""
            ratio = f"{row[f'{what}_of_cudnn']:.2f} x cudnn" if f"{what}_of_cudnn" in row else ""
            parts.append(f"{part} {ratio:12}")
    parts += [f"{row['extra_mib']:.0f} MiB extra"] if "extra_mib" in row else []
    parts += [f"cannot: {row['cannot']}"] if "cannot" in row else []
    return f"{row['shape']:34} {row['provider']:21} {'  '.join(parts)}".rstrip()


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures were taken on."""
    import triton

    on_gpu = device.type == "cuda"
    cudnn = torch.backends.cudnn.version() if on_gpu else None  # type: ignore[no-untyped-call]
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else platform.machine(),
        "chip": validated.chip(device),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "cudnn": cudnn,
        "source": {name: validated.source_hash(name) for name in validated.SOURCES},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--op", choices=("attention", "fused", "all"), default="all")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    on_gpu = torch.cuda.is_available()
    if on_gpu == (os.environ.get("TRITON_INTERPRET") == "1"):
        parser.error("set TRITON_INTERPRET=1 on a CPU, and unset it where there is a GPU")
    device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
    dtype, limit_s = torch.bfloat16, 1.0 if on_gpu else 0.0
    facts, rows = machine(device), []
    if not arguments.json:
        print(f"{facts['device']}, {validated.name_of(dtype)}, torch {facts['torch']}, triton {facts['triton']}")
    for name, made in (
        ("attention", attention_rows(device, dtype, limit_s)),
        ("fused", fused_rows(device, dtype, limit_s)),
    ):
        if arguments.op in (name, "all"):
            for row in made:
                rows.append(row)
                if not arguments.json:
                    print(_line(row), flush=True)
    today = datetime.now(UTC).strftime("%Y-%m-%d")
    document = {"date": today, **facts, "dtype": validated.name_of(dtype), "dry_run": not on_gpu, "rows": rows}
    output: Path | None = arguments.output
    if output is None and on_gpu:
        chip = facts["device"].split()[-1].lower()
        output = Path("bench") / "results" / chip / f"{today}-kernels-{arguments.op}.json"
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if arguments.json:
        print(json.dumps(document))
    elif output is not None:
        print(f"written to {output}")
    if not on_gpu and not arguments.json:
        print("a dry run in Triton's interpreter: the harness works, and no figure here says anything of a GPU")
    return 0


if __name__ == "__main__":
    sys.exit(main())
