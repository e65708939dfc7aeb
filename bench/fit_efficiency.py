"""Fits the time model to published tables: `python bench/fit_efficiency.py`. Prints constants; writes nothing.

What is fitted on what, and where it stands:

    products on B200 and A100-PCIe      kernels.csv        how share depends on GFLOP, the fill of k, traffic beside
    attention on the same               kernels.csv        `attention_forward`, `attention_backward`
    links of A100, V100, B200           collectives.csv    `latency_s`, `hop_s`, `share`
    products on A100 and H100 SXM,      llm-foundry rows   `matmul` = A * G / (G + G0); `traffic`, `attention` of
    llm-foundry's layers                of 8 GPUs          frameworks/llm-foundry.toml
    Megatron of 2021: the host's time   vTrain, one node   `dispatch_s`, `step_s` of megatron-deepspeed.toml
    per kernel
    gradients in DeepSpeed's ZeRO-1     BLOOM prequel      `DEEPSPEED_ZERO_BYTES` of published_sources.py
    the interval                        all fitted rows    `_BELOW`, `_ABOVE` of compiler/cost/time.py

Not fitted, and said so where they stand: B200 keeps up 0.93 of its kernel table in training, as A100 keeps up 0.92 and
H100 0.87 of the best product measured on them; fp8 on Blackwell is sized by Megatron-Bridge's rows.
"""

import csv
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

import msgspec
from published import PUBLISHED, Row, rows

from trainwright.compiler.cost.framework import TimeProfile, load_framework
from trainwright.compiler.cost.time import quick_step_time, step_time
from trainwright.spec.device import HardwareFile

GFLOPS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 10_000.0)
BANDWIDTH = {"B200": 8.0e12, "A100-PCIe": 1.94e12}  # bytes per second: stas00/ml-engineering; NVIDIA's datasheet
FILL, BESIDE = 32, 0.5  # as compiler/cost/operators.py has them
OUTLIERS = ("21", "80")  # 30B at 8k on 8 GPUs: more than twice slower than at 4k, memory nearly full


def saturating(top: float, half: float) -> tuple[tuple[float, float], ...]:
    """The curve top * G / (G + half): a fixed time beside one that grows with the work."""
    return tuple((size, round(top * size / (size + half), 3)) for size in GFLOPS)


def error(ratios: Iterable[float]) -> float:
    return statistics.fmean(abs(ratio - 1) for ratio in ratios)


def descend(loss: Callable[[Mapping[str, float]], float], start: Mapping[str, float]) -> dict[str, float]:
    """The nearest minimum, one constant at a time, in steps of 15 % that are halved when none helps."""
    best, step = dict(start), 0.15
    least = loss(best)
    while step > 0.01:
        moved = False
        for name in best:
            for factor in (1 + step, 1 - step):
                tried = best | {name: best[name] * factor}
                if (found := loss(tried)) < least - 1e-6:
                    best, least, moved = tried, found, True
                    break
        step = step if moved else step / 2
    return best


# --- tables ----------------------------------------------------------------------------------------------------------


def table(name: str) -> list[dict[str, str]]:
    with (PUBLISHED / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def products() -> None:
    """The share of the peak by GFLOP, once the fill of k and half of the product's own traffic are taken off."""
    for gpu, bandwidth in BANDWIDTH.items():
        bins: dict[int, list[tuple[float, float]]] = defaultdict(list)
        for row in table("kernels"):
            if row["gpu_type"] != gpu or row["op"] != "matmul":
                continue
            m, n, k = (float(row[name]) for name in "mnk")
            flops, peak = 2 * m * n * k, float(row["peak_tflops"]) * 1e12
            moved = 2 * (m * k + k * n + m * n)
            own_s = flops / (peak * float(row["efficiency"])) - BESIDE * moved / bandwidth
            size = flops / 1e9
            if own_s > 0:
                share = flops * (1 + FILL / k) / (peak * own_s)
                bins[sum(size >= edge for edge in (6, 17, 60, 170, 600, 1700, 6000, 17_000))].append((size, share))
        print(f"products, {gpu}:")
        for found in (bins[place] for place in sorted(bins)):
            size, share = (statistics.median(each) for each in zip(*found, strict=True))
            print(f"  {size:9.1f} GFLOP {share:6.3f}  ({len(found)} kernels)")


def attention() -> None:
    """The table counts the whole square; we count its causal half."""
    for gpu in BANDWIDTH:
        for op, factor in (("sdp_fwd", 1.0), ("sdp_bwd", 2.5)):
            points: dict[float, list[float]] = defaultdict(list)
            for row in table("kernels"):
                if row["gpu_type"] == gpu and row["op"] == op and row["qk_dim"] == row["v_dim"]:
                    length, width = float(row["seq_len"]), float(row["heads"]) * float(row["qk_dim"])
                    points[round(factor * 2 * length * length * width / 1e9)].append(float(row["efficiency"]) / 2)
            print(f"{op}, {gpu}: " + ", ".join(f"[{g}, {statistics.fmean(points[g]):.3f}]" for g in sorted(points)))


def links() -> None:
    """t = latency_s + 2 * (n - 1) * hop_s + 2 * (n - 1) / n * bytes / (bytes_per_s * share), least absolute errors."""
    rates = {"A100": 3.0e11, "V100": 1.5e11, "B200": 9.0e11}
    for kind, rate in rates.items():
        own = [
            (int(row["gpus"]), float(row["payload_bytes"]), float(row["time_us"]) / 1e6)
            for row in table("collectives")
            if row["gpu_type"].startswith(kind) and row["nodes"] == "1" and float(row["payload_bytes"]) >= 2**20
        ]

        def loss(x: Mapping[str, float], own: list[tuple[int, float, float]] = own, rate: float = rate) -> float:
            def predicted(n: int, size: float) -> float:
                return x["latency_s"] + 2 * (n - 1) * x["hop_s"] + 2 * (n - 1) / n * size / (rate * x["share"])

            return error(predicted(n, size) / measured for n, size, measured in own)

        best = descend(loss, {"latency_s": 3e-5, "hop_s": 3e-6, "share": 0.8})
        print(f"links, {kind}: " + ", ".join(f"{k} {v:.3g}" for k, v in best.items()) + f"; error {loss(best):.1%}")


# --- rows ------------------------------------------------------------------------------------------------------------


def seconds(row: Row, hardware: HardwareFile, **changes: object) -> float:
    assert row.case is not None
    profile: TimeProfile = load_framework(row.case.framework).time
    profile = msgspec.structs.replace(profile, **(row.overrides | changes))
    return float(quick_step_time(row.case, hardware, profile))


def measured(row: Row) -> float:
    assert row.step_time_s is not None
    return row.step_time_s


def with_products(row: Row, top: float, half: float) -> HardwareFile:
    assert row.hardware is not None
    efficiency = msgspec.structs.replace(row.hardware.efficiency, matmul=saturating(top, half))
    return msgspec.structs.replace(row.hardware, efficiency=efficiency)


def layers(found: list[Row]) -> None:
    """A100, H100, llm-foundry and vTrain's Megatron together: they share the A100."""
    foundry = [
        row
        for row in found
        if "llm-foundry" in row.source
        and row.row_id not in OUTLIERS
        and row.half_precision
        and row.case is not None
        and row.case.world_size == 8
    ]
    single = [row for row in found if "single-node" in row.source][::3]

    def price(row: Row, x: Mapping[str, float]) -> float:
        ampere = row.hardware_name.startswith("a100")
        hardware = with_products(row, x["a100"] if ampere else x["h100"], x["half"] * (1 if ampere else 1.5))
        if row in single:
            return seconds(row, hardware, dispatch_s=x["dispatch_s"], step_s=x["step_s"])
        return seconds(row, hardware, traffic=x["traffic"], attention=x["attention"], attention_hopper=x["hopper"])

    def loss(x: Mapping[str, float]) -> float:
        return sum(error(price(row, x) / measured(row) for row in rows) for rows in (foundry, single))

    start = {"a100": 0.8, "h100": 0.7, "half": 6.0, "traffic": 1.8, "attention": 0.6, "hopper": 0.3}
    best = descend(loss, start | {"dispatch_s": 2e-5, "step_s": 0.003})
    print("layers: " + ", ".join(f"{name} {value:.3g}" for name, value in best.items()))
    for name, own in (("llm-foundry, 8 GPUs", foundry), ("vTrain, one node, every third", single)):
        print(f"  {name}: {len(own)} rows, error {error(price(row, best) / measured(row) for row in own):.1%}")


def gradients(found: list[Row]) -> None:
    """What a micro-batch's gradients cost in DeepSpeed's ZeRO-1, bytes per parameter."""
    own = [row for row in found if "BLOOM tr11" in row.source and not row.assumed and row.hardware is not None]
    for moved in (8, 24, 40, 60):
        ratios = [seconds(row, row.hardware, accumulate_bytes=moved) / measured(row) for row in own if row.hardware]
        mean = statistics.fmean(ratios) - 1
        print(f"BLOOM, {moved} bytes: {len(own)} rows, error {error(ratios):.1%}, mean {mean:+.1%}")


def interval(found: list[Row]) -> None:
    ratios = []
    for row in found:
        fitted = any(name in row.source for name in ("llm-foundry", "single-node", "BLOOM"))
        if fitted and row.case is not None and row.hardware is not None:
            profile = msgspec.structs.replace(load_framework(row.case.framework).time, **row.overrides)
            ratios.append(measured(row) / step_time(row.case, row.parts, row.hardware, profile).time_s)
    tenths = statistics.quantiles(ratios, n=10)
    print(f"interval: {len(ratios)} fitted rows took {tenths[0] - 1:+.1%} to {tenths[-1] - 1:+.1%} (80 % of them)")


def main() -> None:
    products()
    attention()
    links()
    found = [row for row in rows() if row.case is not None and row.step_time_s is not None]
    layers(found)
    gradients(found)
    interval(found)


if __name__ == "__main__":
    main()
