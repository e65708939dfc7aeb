"""Memory and time of the head with its loss: logits of all tokens, our cross entropy on them, and no logits at all.

    python bench/linear_cross_entropy.py [--tokens 8192] [--vocabulary 92544] [--hidden 512] [--rounds 3]

Each contestant runs forward and backward in a process of its own; extra memory is the growth of its peak resident set
over what it held before: inputs, labels and weight. Prints a table and writes it to results/.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

CONTESTANTS = {
    "torch": "linear, then torch's cross_entropy",
    "cross_entropy": "linear, then kernels.cross_entropy, which overwrites the logits",
    "linear_cross_entropy": "kernels.linear_cross_entropy",
}


def measure(name: str, tokens: int, entries: int, hidden: int, rounds: int) -> dict[str, float]:
    """Peak growth in bytes, and the median seconds of a round: by the clock, and on all cores together."""
    import torch
    from torch.nn import functional

    from trainwright.kernels.cross_entropy import cross_entropy
    from trainwright.kernels.linear_cross_entropy import linear_cross_entropy

    torch.manual_seed(0)
    h = torch.randn(tokens, hidden, requires_grad=True)
    w = torch.randn(entries, hidden).mul_(hidden**-0.5).requires_grad_()  # in place: frees nothing to be used again
    labels = torch.randint(entries, (tokens,))
    functions = {
        "torch": lambda: functional.cross_entropy(h @ w.T, labels, reduction="none"),
        "cross_entropy": lambda: cross_entropy(h @ w.T, labels),
        "linear_cross_entropy": lambda: linear_cross_entropy(h, w, labels),
    }
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    seconds, cpu_seconds = [], []
    for _ in range(rounds):
        h.grad = w.grad = None
        began, cpu_began = time.perf_counter(), time.process_time()
        functions[name]().sum().backward()  # type: ignore[no-untyped-call]
        seconds.append(time.perf_counter() - began)
        cpu_seconds.append(time.process_time() - cpu_began)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "extra_bytes": after - before,
        "median_s": statistics.median(seconds),
        "median_cpu_s": statistics.median(cpu_seconds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--vocabulary", type=int, default=92_544)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--only", choices=CONTESTANTS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only:
        print(json.dumps(measure(given.only, given.tokens, given.vocabulary, given.hidden, given.rounds)))
        return
    sizes = {"tokens": given.tokens, "vocabulary": given.vocabulary, "hidden": given.hidden, "rounds": given.rounds}
    options = [part for name, value in sizes.items() for part in (f"--{name}", str(value))]
    rows = {}
    for name, what in CONTESTANTS.items():
        command = [sys.executable, __file__, "--only", name, *options]
        rows[name] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        print("{:66} {:6.2f} GiB {median_s:7.2f} s, {median_cpu_s:.2f} s on cores".format(
            what, rows[name]["extra_bytes"] / 2**30, **rows[name]), flush=True)  # fmt: skip
    import torch

    machine = f"{os.cpu_count()}-core-{os.uname().machine}"
    out = given.out / machine / f"{datetime.now(UTC):%Y-%m-%d}-linear-cross-entropy.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    versions = {"machine": machine, "threads": torch.get_num_threads(), "load": os.getloadavg()[1]}
    document = {**versions, "torch": torch.__version__, "dtype": "fp32", **sizes, "results": rows}
    out.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
