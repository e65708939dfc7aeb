"""How long the search over layouts takes, and what it picks for InternLM2 on A800.

    python bench/search.py [--rounds 5] [--out bench/results]

Times are of InternLM2-20B's 4k and 32k phases together, on 8 to 16,384 GPUs: of the search in a warm process, and of
`trainwright plan --search` in a new one; the best and the median of the rounds. `runnable` looks at the layouts that
our runtime executes, `all` at every one that the language can say.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from trainwright.compiler.pipeline import questions_of
from trainwright.compiler.present.search import describe, rows
from trainwright.compiler.search.question import Question, Request
from trainwright.compiler.search.result import Search
from trainwright.compiler.search.search import search
from trainwright.spec.device import HardwareFile
from trainwright.spec.load import load

TIMED_NODES = (1, 16, 128, 2048)
PICKED = (("1.8b", 16), ("7b", 64), ("20b", 128))
STARTS = {0: None, 1: 0}
SPEC = """
topology = "auto"
[run]
name = "search"
[model]
preset = "internlm2-{size}"
[tokenizer]
train = {{}}
[data.sources.text]
path = "text.txt"
[data.mixtures]
base = {{ text = 1 }}
[cluster]
nodes = {nodes}
gpus_per_node = 8
gpu = "a800-80gb"
[[phases]]
name = "4k"
tokens = "2.34T"
sequence_length = 4096
tokens_per_step = "4Mi"
mixture = "base"
learning_rate = {{ peak = 3e-4 }}
[[phases]]
name = "32k"
tokens = "234B"
sequence_length = 32_768
mixture = "base"
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "text.txt").write_text("Call me Ishmael.\n")
        times = [timed(folder, nodes, arguments.rounds) for nodes in TIMED_NODES]
        picks = [picked(folder, size, nodes) for size, nodes in PICKED]
    path = arguments.out / f"{os.cpu_count()}-core-{platform.machine()}" / f"{datetime.now(UTC):%Y-%m-%d}-search.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine(), "times": times, "picks": picks}, indent=2) + "\n")
    print(f"wrote {path}")


def spec_of(folder: Path, size: str, nodes: int) -> Path:
    path = folder / f"{size}-{nodes}.toml"
    path.write_text(SPEC.format(size=size, nodes=nodes))
    return path


def asked_by(path: Path) -> tuple[dict[int, Question], HardwareFile]:
    asked = questions_of(load(path), None)
    if asked is None:
        raise RuntimeError(f"`{path}` has mistakes")
    return asked


def timed(folder: Path, nodes: int, rounds: int) -> dict[str, Any]:
    """Seconds of the search for the 20B's two phases on so many nodes of 8."""
    path = spec_of(folder, "20b", nodes)
    questions, device = asked_by(path)
    row: dict[str, Any] = {"gpus": 8 * nodes}
    for name, everything in (("runnable", False), ("all", True)):
        row[name] = timed_space(path, questions, device, everything, rounds)
        said = f"{row[name]['layouts']:,} layouts"
        for where in ("warm", "new_process"):
            taken = row[name][where]
            said += f", {where.replace('_', ' ')}: {taken['best_s']:.2f} s ({taken['cpu_s']:.2f} s on a core)"
        print(f"{8 * nodes:6,} GPUs, {name:8}: {said}", flush=True)
    return row


def timed_space(
    path: Path, questions: dict[int, Question], device: HardwareFile, everything: bool, rounds: int
) -> dict[str, Any]:
    here = {index: replace(question, everything=everything) for index, question in questions.items()}
    command = [sys.executable, "-m", "trainwright", "plan", str(path), "--search", "-q"] + ["--all"] * everything

    def in_process() -> Search:
        return search(here, {}, STARTS, device, Request(), opened=False)

    return {
        "layouts": sum(found.legal for found in in_process().phases.values()),
        "warm": seconds(in_process, rounds),
        "new_process": seconds(lambda: subprocess.run(command, check=True), rounds),
    }


def seconds(work: Callable[[], object], rounds: int) -> dict[str, float]:
    """Wall time, and the least time on a core: what it would be on a quiet machine."""
    taken, busy = [], []
    for _ in range(rounds):
        start, before = time.perf_counter(), sum(os.times()[:4])
        work()
        taken.append(time.perf_counter() - start)
        busy.append(sum(os.times()[:4]) - before)
    return {
        "best_s": round(min(taken), 4),
        "median_s": round(statistics.median(taken), 4),
        "cpu_s": round(min(busy), 2),
    }


def picked(folder: Path, size: str, nodes: int) -> dict[str, Any]:
    """What is chosen for a model's phases, and why the next ones lose."""
    questions, device = asked_by(spec_of(folder, size, nodes))
    found = search(questions, {}, STARTS, device, Request(), opened=False)
    print(f"\nInternLM2-{size.upper()} on {8 * nodes:,} A800:")
    picks: dict[str, Any] = {}
    for index, phase in found.phases.items():
        picks[phase.question.phase] = []
        for candidate, why in rows(phase, found.choices[index], top=4):
            row = {
                "layout": describe(candidate.layout),
                "step_s": round(candidate.step.time_s, 3),
                "memory_gib": round(candidate.memory.total_bytes / 2**30, 1),
                "why_not": why or None,
            }
            picks[phase.question.phase].append(row)
            figures = f"{row['step_s']:8.2f} s {row['memory_gib']:6.1f} GiB"
            print(f"  {phase.question.phase:4} {row['layout']:60} {figures}  {why or 'chosen'}")
    return {"model": f"internlm2-{size}", "gpus": 8 * nodes, "phases": picks}


def machine() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        "numpy": version("numpy"),
    }


if __name__ == "__main__":
    main()
