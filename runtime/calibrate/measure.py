"""All measurements of this machine, and the hardware file that they make.

The curves are shares of a peak. A GPU whose kind is shipped takes peaks, power and network from there; elsewhere a
peak is the best that was measured, so that MFU means: of what this machine can reach. On a CPU the figures are those
of one process with all of its cores.
"""

import importlib.metadata
import math
import os
import platform
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import geometric_mean

import psutil
import torch

from trainwright import __version__
from trainwright.runtime.calibrate.links import Links, fit, measure_links
from trainwright.runtime.calibrate.operators import Point, Precision, attention, launch_s, memory_bound, product
from trainwright.spec.device import Curve, Efficiency, HardwareFile, Link, Measured, Peak, known_hardware, load_hardware
from trainwright.spec.device import Links as LinkFigures

GIGA = 1e9
MEBI = float(1 << 20)
_BUCKET = 4.0  # products whose sizes are within this factor make one point of the curve


@dataclass(frozen=True)
class Extent:
    """How much is measured. Sizes suit the device; heads are of 128, for which the cost model has no penalty."""

    tokens: tuple[int, ...]
    widths: tuple[int, ...]  # K of products; N is as much, and four times as much
    lengths: tuple[int, ...]  # of sequences
    attended: int  # tokens of a call of attention
    heads: int
    head_size: int
    rows: tuple[int, ...]  # of memory-bound operators
    row: int
    each_s: float


CPU = Extent((256, 2048), (64, 192, 512, 1024, 2048), (128, 256, 512, 1024, 2048, 4096), 4096, 4, 128,
             (16, 64, 256, 1024, 4096, 16384), 1024, 0.35)  # fmt: skip
QUICK_CPU = Extent((256, 2048), (192, 1024), (128, 512, 2048), 2048, 4, 128, (16, 256, 2048, 16384), 1024, 0.15)
GPU = Extent((1024, 4096, 16384), (512, 1024, 2048, 4096, 8192), (512, 1024, 2048, 4096, 8192, 16384, 32768), 32768,
             32, 128, (64, 256, 1024, 4096, 16384, 65536), 4096, 0.3)  # fmt: skip
QUICK_GPU = Extent((4096,), (512, 2048, 8192), (1024, 4096, 16384), 16384, 32, 128, (64, 1024, 16384), 4096, 0.15)


@dataclass(frozen=True)
class Measurements:
    """What was measured, as it was. `other_peak` is of the precision that the curves are not of."""

    precision: Precision
    load: float  # processes that wanted a core in the minute before
    products: tuple[Point, ...]
    other_peak: Point
    forward: tuple[Point, ...]
    backward: tuple[Point, ...]
    memory: tuple[tuple[Point, ...], ...]  # by rows, each operator once
    launch_s: float
    links: Links | None


def measure(*, quick: bool, say: Callable[[str], None]) -> Measurements:
    """Everything, each result told as it comes. Raises LinkError."""
    on_gpu = torch.cuda.is_available()
    extent = (QUICK_GPU if quick else GPU) if on_gpu else (QUICK_CPU if quick else CPU)
    precision: Precision = "bf16" if on_gpu else "fp32"
    other: Precision = "fp32" if on_gpu else "bf16"
    limit_s = extent.each_s
    load = os.getloadavg()[0]
    if load > _cores() / 4:
        say(f"{load:.1f} other processes want the {_cores()} cores: what is measured now will be too slow")

    def told(point: Point, unit: str) -> Point:
        say(f"{point.what:36} {point.time_s * 1e3:10.3f} ms  {point.rate / GIGA:10.1f} {unit}")
        return point

    products = tuple(
        told(product(tokens, width, width * factor, precision, limit_s), "GFLOP/s")
        for width in extent.widths
        for factor in (1, 4)
        for tokens in extent.tokens
    )
    wide = extent.widths[-1]
    other_peak = told(product(extent.tokens[-1], wide, wide, other, limit_s), "GFLOP/s")
    attended = [
        attention(length, max(1, extent.attended // length), extent.heads, extent.head_size, precision, limit_s)
        for length in extent.lengths
    ]
    for pair in attended:
        for point in pair:
            told(point, "GFLOP/s")
    memory = []
    for rows in extent.rows:
        points = memory_bound(rows, extent.row, precision, limit_s)
        memory.append(tuple(told(point, "GB/s") for point in points))
    launch = launch_s(limit_s)
    say(f"from one operator to the next: {launch * 1e6:.1f} us")
    counts = _processes(on_gpu)
    links = measure_links(counts, (3.0 if quick else 8.0) * len(counts)) if counts else None
    for count, times in links.all_reduce.items() if links else ():
        for size, time_s in times.items():
            say(f"all-reduce of {size >> 10:,} KiB among {count}: {time_s * 1e3:.3f} ms")
    return Measurements(
        precision=precision,
        load=load,
        products=products,
        other_peak=other_peak,
        forward=tuple(forward for forward, _ in attended),
        backward=tuple(backward for _, backward in attended),
        memory=tuple(memory),
        launch_s=launch,
        links=links,
    )


def hardware_of(found: Measurements) -> HardwareFile:
    """The hardware file of this machine."""
    known = _shipped_kind(found.precision)
    best = max(point.rate for point in found.products)
    other = "fp32" if found.precision == "bf16" else "bf16"
    peaks = known.peak_flops if known else Peak(**{found.precision: best, other: found.other_peak.rate})
    peak = getattr(peaks, found.precision)
    bandwidth = known.memory_bytes_per_s if known else None
    if bandwidth is None:
        bandwidth = max(point.rate for points in found.memory for point in points)
    return HardwareFile(
        name=_device_name(),
        device="cuda" if torch.cuda.is_available() else "cpu",
        memory_bytes=_memory_bytes(),
        memory_bytes_per_s=bandwidth,
        power_watts=known.power_watts if known else None,
        launch_s=found.launch_s,
        peak_flops=peaks,
        efficiency=Efficiency(
            matmul=_curve(_alike(found.products), GIGA, peak),
            attention_forward=_curve([(point,) for point in found.forward], GIGA, peak),
            attention_backward=_curve([(point,) for point in found.backward], GIGA, peak),
            memory=_curve(found.memory, MEBI, bandwidth),
        ),
        links=_links(found.links, known),
        measured=Measured(
            date=datetime.now(UTC).strftime("%Y-%m-%d"),
            machine=f"{_device_name()}, {_cores()} cores, {platform.system()} {platform.machine()}",
            threads=torch.get_num_threads(),
            precision=found.precision,
            load=round(found.load, 1),
            versions={"trainwright": __version__, "torch": importlib.metadata.version("torch")},
        ),
    )


def _alike(points: Iterable[Point]) -> list[tuple[Point, ...]]:
    """The points in groups of sizes within a factor of _BUCKET, rising."""
    groups: dict[int, list[Point]] = {}
    for point in points:
        groups.setdefault(round(math.log(point.work, _BUCKET)), []).append(point)
    return [tuple(alike) for _, alike in sorted(groups.items())]


def _curve(groups: Iterable[tuple[Point, ...]], unit: float, peak: float) -> Curve:
    """One (size, share of the peak) for each group: its mean size, and what it reaches if all is done in turn."""
    return tuple(
        (
            float(f"{geometric_mean(point.work for point in alike) / unit:.3g}"),
            float(f"{sum(point.work for point in alike) / sum(point.time_s for point in alike) / peak:.3g}"),
        )
        for alike in groups
    )


def _links(found: Links | None, known: HardwareFile | None) -> LinkFigures:
    """Latency and share from all-reduces, the bandwidth from sending; the network as it is known of the kind."""
    if found is None:
        return known.links if known else LinkFigures(domain=_cores())
    fewest = min(found.all_reduce)
    latency_s, rate = fit(found.all_reduce[fewest], 2 * (fewest - 1) / fewest)
    _, sent = fit(found.send, 1.0)
    most = max(found.all_reduce)
    hop_s = 0.0  # unknown where only two processes were tried
    if most > fewest:
        hop_s = max(0.0, (fit(found.all_reduce[most], 2 * (most - 1) / most)[0] - latency_s) / (2 * (most - fewest)))
    link = Link(bytes_per_s=max(sent, rate), share=min(1.0, rate / max(sent, rate)), latency_s=latency_s, hop_s=hop_s)
    network = known.links.network if known else None
    return LinkFigures(device=link, network=network, domain=max(most, _domain()))


def _processes(on_gpu: bool) -> tuple[int, ...]:
    """Among how many processes exchanges are measured: two, and all; none where there is one device."""
    count = torch.cuda.device_count() if on_gpu else min(_cores(), 8)
    if count < 2:
        return ()
    return (2,) if count < 4 else (2, count)


def _domain() -> int:
    return torch.cuda.device_count() if torch.cuda.is_available() else _cores()


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _memory_bytes() -> int:
    if torch.cuda.is_available():
        return int(torch.cuda.get_device_properties(0).total_memory)
    return int(psutil.virtual_memory().total)


def _device_name() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _shipped_kind(precision: Precision) -> HardwareFile | None:
    """What is shipped of this machine's kind of GPU: its family in the name, the memory nearest to this one's.

    None too if nothing is known of its speed in this precision.
    """
    if not torch.cuda.is_available():
        return None
    name, memory = _device_name().lower(), _memory_bytes()
    files = [(stem.split("-")[0], load_hardware(stem)) for stem in known_hardware()]
    alike = [file for family, file in files if file and file.peak(precision) is not None and family in name]
    return min(alike, key=lambda file: abs((file.memory_bytes or 0) - memory), default=None)
