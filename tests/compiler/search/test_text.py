"""What the terminal shows of a made-up search, at two widths.

`python -m tests.compiler.search.test_text` rewrites the golden texts; read the difference before you commit it.
"""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from tests.compiler.search.questions import question

from trainwright.compiler.present.search import print_clusters, print_search
from trainwright.compiler.search.explain import why_slower
from trainwright.compiler.search.question import Request
from trainwright.compiler.search.result import Candidate, Choice, ClusterTried, PhaseSearch, Search
from trainwright.spec.plan import Layout, RankMemory, StepTime

FOLDER = Path(__file__).resolve().parents[2] / "cases" / "texts"
WIDTHS = (100, 80)
GIB = 2**30


def candidate(tensor: int, pipeline: int, gib: float, **parts: float) -> Candidate:
    """On 16 GPUs, with these seconds of a step."""
    data = 16 // tensor // pipeline
    layout = Layout(
        tensor=tensor, pipeline=pipeline, virtual_pipeline=1, context=1, data=data, sequence_parallel=tensor > 1,
        zero=1, zero_group=data, micro_batch=2, micro_batches=32 // data, recompute="none", schedule="1f1b",
    )  # fmt: skip
    memory = RankMemory(
        pipeline_rank=0, parameters_bytes=0, gradients_bytes=0, optimizer_bytes=0, activations_bytes=int(gib * GIB),
        activations={}, logits_bytes=0, communication_bytes=0, temporaries_bytes=0, framework_bytes=0,
        total_bytes=int(gib * GIB), peak="the loss", binds="activations",
    )  # fmt: skip
    whole = sum(parts.values())
    named = {key.replace("_", " "): seconds for key, seconds in parts.items()}
    step = StepTime(time_s=whole, low_s=whole, high_s=whole, parts=named, chunks=(), transfer_s=0.0, bubble=0.0)
    return Candidate(layout, memory, step)


def made_search() -> Search:
    """A phase of 4k, and two of 32k that are alike."""
    best = (
        candidate(2, 1, 60.0, matmul=8.0, tensor_exchange=2.0),
        candidate(2, 2, 40.0, matmul=8.0, tensor_exchange=1.8, pipeline_bubble=1.2),
        candidate(4, 1, 30.0, matmul=8.2, tensor_exchange=4.0),
    )
    short = PhaseSearch(
        question=question(nodes=2), legal=1234, left_out=5678, fit=321, limit_bytes=70.0 * GIB, best=best,
        too_large=(candidate(1, 2, 77.1, matmul=8.0, pipeline_bubble=1.5),), smallest=None,
    )  # fmt: skip
    asked = replace(question(nodes=2, length=32_768, sequences=8), phase="32k")
    long = replace(short, question=asked, best=best[::-1], too_large=())
    again = replace(long, question=replace(long.question, phase="enhance"))
    return Search(
        request=Request(),
        opened=True,
        phases={0: short, 1: long, 2: again},
        choices={0: Choice(best[0], 0.0), 1: Choice(best[2], 75.0), 2: Choice(best[2], 0.0)},
    )


def shown(width: int) -> str:
    """The text without colour and without blanks at the ends of lines."""
    console = Console(width=width, file=io.StringIO(), record=True, color_system=None)
    tried = [ClusterTried(1, None, None), ClusterTried(2, 1e6, 4444.4), ClusterTried(3, 7e5, 4666.7)]
    print_clusters(tried, 2, console)
    print_search(made_search(), 2, console)
    return "\n".join(line.rstrip() for line in console.export_text().splitlines()) + "\n"


@pytest.mark.parametrize("width", WIDTHS)
def test_shows_what_it_showed(width: int) -> None:
    assert shown(width) == (FOLDER / f"search-{width}.txt").read_text(encoding="utf-8")


def test_a_part_that_hardly_differs_is_not_a_reason() -> None:
    chosen = candidate(2, 1, 60.0, matmul=8.0, tensor_exchange=2.0)
    assert why_slower(candidate(4, 1, 60.0, matmul=8.0, tensor_exchange=3.0), chosen) == "+10% tensor exchange"
    assert why_slower(candidate(4, 1, 60.0, matmul=8.05, tensor_exchange=2.0), chosen).startswith("+0.5%")


def test_a_faster_layout_that_was_not_chosen_loses_to_the_change_between_phases() -> None:
    chosen = candidate(2, 1, 60.0, matmul=8.0)
    assert "changing the layout" in why_slower(candidate(4, 1, 60.0, matmul=7.0), chosen)


if __name__ == "__main__":
    for each in WIDTHS:
        (FOLDER / f"search-{each}.txt").write_text(shown(each), encoding="utf-8")
