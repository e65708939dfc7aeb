"""Do all layouts train alike: 20 steps of the demo's model through `trainwright run` under each, losses compared.

    python bench/layout_parity.py [--steps 20] [--out bench/results]

Prints, for each layout, the largest relative difference of a step's loss from that of one process, and the tokens per
second (all processes share this machine's cores, so that says nothing about scaling).
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"
LAYOUTS: dict[str, tuple[str, ...]] = {
    "1 process": (),
    "TP 2": ("cluster.gpus_per_node=2", "topology.tensor=2", "topology.sequence_parallel=false"),
    "TP 2 + SP": ("cluster.gpus_per_node=2", "topology.tensor=2", "topology.sequence_parallel=true"),
    "PP 2": ("cluster.gpus_per_node=2", "topology.pipeline=2", "topology.micro_batch=4"),
    "PP 2 x VPP 2": (
        "cluster.gpus_per_node=2",
        "topology.pipeline=2",
        "topology.virtual_pipeline=2",
        "topology.micro_batch=4",
    ),
    "DP 2 + distributed optimizer": ("cluster.gpus_per_node=2", "topology.zero=1"),
    "TP 2 x PP 2 x DP 2": (
        "cluster.gpus_per_node=8",
        "topology.tensor=2",
        "topology.pipeline=2",
        "topology.micro_batch=4",
    ),
}
SPEC = """
extends = ["tiny.toml"]
[[phases]]
name = "parity"
tokens = {tokens}
sequence_length = 128
tokens_per_step = 2048
mixture = "base"
rope_base = 50_000
learning_rate = {{ peak = 4e-3, final = 4e-4, warmup = "4 steps" }}
[[evaluation]]
kind = "perplexity"
of = ["parity"]
[export]
of = ["parity"]
"""


def run(folder: Path, name: str, sets: tuple[str, ...]) -> list[dict[str, float]]:
    """The phase's metrics, a row a step. Stops after training: evaluation and export do not depend on the layout."""
    run_name = name.replace(" ", "").replace("+", "-").replace("x", "-")
    options = [part for item in (f"run.name={run_name}", *sets) for part in ("-s", item)]
    command = [sys.executable, "-m", "trainwright", "run", "parity.toml", "-y", "-q", *options]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    return [json.loads(line) for line in (folder / "runs" / run_name / "metrics.jsonl").read_text().splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(shutil.copytree(EXAMPLES, Path(temporary) / "examples"))
        (folder / "parity.toml").write_text(SPEC.format(tokens=arguments.steps * 2048))
        reference: list[float] = []
        for name, sets in LAYOUTS.items():
            metrics = run(folder, name, sets)
            losses = [row["train/loss"] for row in metrics]
            reference = reference or losses
            worst = max(abs(a - b) / b for a, b in zip(losses, reference, strict=True))
            speed = statistics.median(row["perf/tgs"] for row in metrics)
            rows[name] = {"max_relative_loss_error": worst, "last_loss": losses[-1], "median_tgs": speed}
            print(
                f"{name:30} error {worst:.1e}  last loss {losses[-1]:.6f}  {speed:8.0f} tokens/s a process", flush=True
            )
    cores = os.cpu_count()
    out = arguments.out / f"{cores}-core-{os.uname().machine}" / f"{datetime.now(UTC):%Y-%m-%d}-layout-parity.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(
        json.dumps({"steps": arguments.steps, "precision": "fp32", "cores": cores, "layouts": rows}, indent=2) + "\n"
    )


if __name__ == "__main__":
    main()
