"""What an exchange between processes of this machine takes: gloo between CPU processes, NCCL between GPUs.

All-reduces of rising size are fitted by t = latency + wire bytes / bandwidth, each with the weight 1 / t, so that small
ones count as much as large ones; a ring of n has 2 (n - 1) / n bytes on the wire for each byte of the buffer.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, distributed

from trainwright.runtime import host
from trainwright.runtime.calibrate.clock import repeated

SIZES_BYTES = tuple(1 << exponent for exponent in range(12, 27, 2))  # 4 KiB to 64 MiB


class LinkError(Exception):
    """The processes could not exchange; the text says what they said."""


@dataclass(frozen=True)
class Links:
    """Seconds by size in bytes: all-reduce by number of processes, and sending from one process to another."""

    all_reduce: dict[int, dict[int, float]]
    send: dict[int, float]


def measure_links(processes: Sequence[int], limit_s: float) -> Links:
    """Exchanges among each of these numbers of processes, about `limit_s` for all. Raises LinkError."""
    all_reduce, send = {}, {}
    for count in processes:
        found = _among(count, limit_s / len(processes))
        all_reduce[count] = {int(size): time_s for size, time_s in found["all_reduce"].items()}
        if count == min(processes):
            send = {int(size): time_s for size, time_s in found["send"].items()}
    return Links(all_reduce, send)


def fit(times_s: dict[int, float], wire_factor: float) -> tuple[float, float]:
    """(latency in seconds, bytes per second) of measurements by buffer size. Both are positive.

    The least squares of (a + b w - t) / t over a and b, with a held at zero where it would be negative.
    """
    points = [(size * wire_factor, time_s) for size, time_s in times_s.items()]
    # With u = 1 / t and v = w / t: minimise the sum of (a u + b v - 1)^2.
    us, vs = [1.0 / time_s for _, time_s in points], [wire / time_s for wire, time_s in points]
    uu, vv = sum(u * u for u in us), sum(v * v for v in vs)
    uv, su, sv = sum(u * v for u, v in zip(us, vs, strict=True)), sum(us), sum(vs)
    determinant = uu * vv - uv * uv
    latency_s = (su * vv - sv * uv) / determinant
    per_byte_s = (sv * uu - su * uv) / determinant
    if latency_s <= 0 or per_byte_s <= 0:
        latency_s, per_byte_s = 0.0, sv / vv
    return latency_s, 1.0 / per_byte_s


def _among(processes: int, limit_s: float) -> dict[str, dict[str, float]]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "times.json"
        threads = max(1, len(os.sched_getaffinity(0)) // processes)
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONSAFEPATH": "1"}
        command = [sys.executable, "-m", "trainwright.runtime.calibrate.links", folder, str(processes), str(limit_s)]
        workers = [
            subprocess.Popen([*command, str(rank)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            for rank in range(processes)
        ]
        try:
            said = [worker.communicate(timeout=60 + 10 * limit_s)[1].decode() for worker in workers]
        except subprocess.TimeoutExpired:
            raise LinkError(f"{processes} processes did not come to an end") from None
        finally:
            for worker in workers:
                worker.kill()
        failed = [text.strip().splitlines()[-1:] for worker, text in zip(workers, said, strict=True) if worker.poll()]
        if failed:
            raise LinkError("; ".join(line for lines in failed for line in lines))
        found: dict[str, dict[str, float]] = json.loads(out.read_text())
        return found


def _work(folder: Path, processes: int, limit_s: float, rank: int) -> None:
    if torch.cuda.is_available():
        torch.cuda.set_device(rank)
    distributed.init_process_group(
        host.backend(), init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=processes
    )
    per_size_s = limit_s / (2 * len(SIZES_BYTES))
    times: dict[str, dict[int, float]] = {"all_reduce": {}, "send": {}}
    for size in SIZES_BYTES:
        buffer = torch.zeros(size // 4, device=host.device())
        times["all_reduce"][size] = _agreed(partial(distributed.all_reduce, buffer), per_size_s)
        times["send"][size] = _agreed(partial(_there_and_back, buffer, rank), per_size_s) / 2
    if rank == 0:
        (folder / "times.json").write_text(json.dumps(times))
    distributed.destroy_process_group()


def _there_and_back(buffer: Tensor, rank: int) -> None:
    """Between the first two processes; the others look on."""
    if rank == 0:
        distributed.send(buffer, 1)
        distributed.recv(buffer, 1)
    elif rank == 1:
        distributed.recv(buffer, 0)
        distributed.send(buffer, 0)


def _agreed(work: Callable[[], object], limit_s: float) -> float:
    """The median time of a call, which every process makes as often as the first one says."""
    once = repeated(work, 2)
    runs = torch.tensor([min(100.0, max(3.0, limit_s / once))], device=host.device())
    distributed.broadcast(runs, 0)
    return repeated(work, int(runs.item()))


if __name__ == "__main__":
    _work(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
