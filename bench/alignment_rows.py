"""How long each process of an alignment stage takes to find its rows, and what memory that needs, at InternLM2's scale.

    python bench/alignment_rows.py [--conversations 10_000_000] [--pairs 2_400_000] [--out bench/results]

InternLM2 fine-tuned on 10M conversations and trained its reward models on 2.4M pairs (arXiv 2403.17297, section 4).
Rows of made-up lengths are written as the `conversations` stage writes them; then a process opens them, finds what fits
and packs an epoch, as every rank does at each start. Resident memory is what that process has more than before; files
that are mapped count there too, and the ranks of a node share them. Tokens themselves are not read, so an eighth of
the usual lengths is as good and keeps the files at 5 GB.
"""

import argparse
import importlib
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from throughput import machine, machine_name

ROW = 512
MEAN = 19  # tokens of a turn, of a prompt and of an answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conversations", type=int, default=10_000_000)
    parser.add_argument("--pairs", type=int, default=2_400_000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    result: dict[str, Any] = {"machine": machine(threads=1)}
    with tempfile.TemporaryDirectory() as name:
        for what, count, made in (
            ("conversations", arguments.conversations, conversations),
            ("pairs", arguments.pairs, pairs),
        ):
            written_s = write(Path(name), what, count)
            result[what] = {"rows": count, "written_s": written_s, **apart(made, Path(name))}
            print(what, json.dumps(result[what]))
    path = arguments.out / machine_name() / f"{datetime.now(UTC):%Y-%m-%d}-alignment-rows.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"written to {path}")


def write(folder: Path, source: str, rows: int) -> float:
    """Seconds that the writer takes; a conversation has two exchanges."""
    from trainwright.runtime.align.data.rows import RowWriter

    kind: Any = "chat" if source == "conversations" else "preference"
    roles = ("begin", "user", "assistant", "user", "assistant") if kind == "chat" else ()
    random, started = np.random.default_rng(0), time.perf_counter()
    writer = RowWriter(folder, source, "train", kind)
    text = np.full(2 * MEAN, 7, dtype=np.int32)
    for row in range(rows):
        lengths = random.integers(MEAN // 2, MEAN * 3 // 2, 4 if kind == "chat" else 3).tolist()
        segments = [text[:length] for length in ([1, *lengths] if kind == "chat" else lengths)]
        trained_L = np.ones(1 + sum(lengths), dtype=np.bool_) if kind == "chat" else None
        writer.append(f"{row:016x}", "default", segments, roles=roles, trained_L=trained_L)
    writer.finish()
    return time.perf_counter() - started


def conversations(folder: Path) -> int:
    from trainwright.runtime.align.data.fit import fit_conversations
    from trainwright.runtime.align.data.rows import Conversations
    from trainwright.runtime.align.packed import pack_epochs

    pieces, _ = fit_conversations(Conversations(folder, "conversations", "train"), ROW)
    return len(pack_epochs(pieces.lengths_N, ROW, seed=1, epochs=1))


def pairs(folder: Path) -> int:
    from trainwright.runtime.align.data.rows import RankedRows
    from trainwright.runtime.align.packed import pack_epochs
    from trainwright.runtime.align.reward.framing import Framing
    from trainwright.runtime.align.reward.ranked import RankedLists

    sources = {"pairs": [RankedRows(folder, "pairs", "train")]}
    lists = RankedLists(sources, Framing(1, 2, {}), longest=ROW // 2, row_length=ROW)
    return len(pack_epochs(lists.lengths_N, ROW, seed=1, epochs=1))


def apart(made: Callable[[Path], int], folder: Path) -> dict[str, float]:
    """Its figures in a process of its own."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=measured, args=(made, folder, queue))
    process.start()
    found: dict[str, float] = queue.get()
    process.join()
    return found


def measured(made: Callable[[Path], int], folder: Path, queue: Any) -> None:
    importlib.import_module("trainwright.runtime.align.reward.ranked")  # imports are not what is measured
    before, started = peak_MiB(), time.perf_counter()
    packed = made(folder)
    queue.put(
        {
            "packed_rows": packed,
            "ready_s": time.perf_counter() - started,
            "resident_MiB": peak_MiB() - before,
        }
    )


def peak_MiB() -> float:
    """The most that this process ever had resident; `getrusage` would count what its parent had."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 1024


if __name__ == "__main__":
    main()
