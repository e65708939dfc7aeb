"""Planned beside traced memory of a phase's ranks, for a terminal and for programs."""

from collections.abc import Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from trainwright.compiler.cost.against_trace import TOLERANCE, Comparison, compare
from trainwright.compiler.present.tables import table
from trainwright.spec.plan import Estimate
from trainwright.spec.traced import TracedRank
from trainwright.spec.units import format_bytes


def present_traced(estimate: Estimate, traced: Sequence[TracedRank], console: Console) -> None:
    """A section for each rank: its peak by kind as planned and as traced, and whether they agree."""
    made = table(f"\nMemory of {estimate.stage}", "kind", right=("planned", "traced", "difference"))
    for rank in traced:
        _add_rank(made, rank, _comparison(estimate, rank))
    count = max(rank.micro_batches for rank in traced)
    step = f"the runtime's own step of {count} micro-batch{'es' if count > 1 else ''}, as many as reach the peak"
    operators = sum(rank.operators for rank in traced)
    made.caption = (
        "What torch's allocator hands out, at each one's peak. Differences are shares of the rank's traced total.\n"
        f"Traced: {step}, each sequence one document; {operators:,} operators."
    )
    console.print(made)
    for rank in traced:
        comparison = _comparison(estimate, rank)
        if not comparison.agrees:
            worst = comparison.worst
            console.print(
                f"rank {rank.rank} differs by {comparison.error:+.1%}, most of it in {worst.kind}: "
                f"planned {format_bytes(worst.planned_bytes)}, traced {format_bytes(worst.traced_bytes)}"
            )
    if all(_comparison(estimate, rank).agrees for rank in traced):
        console.print(f"planned and traced agree within {TOLERANCE:.0%} on every rank")


def traced_to_json(estimate: Estimate, traced: Sequence[TracedRank]) -> dict[str, Any]:
    """The phase's name and, for each rank, both peaks by kind."""
    return {"stage": estimate.stage, "ranks": [_rank_to_json(estimate, rank) for rank in traced]}


def _add_rank(made: Table, rank: TracedRank, comparison: Comparison) -> None:
    made.add_row(
        f"[bold]rank {rank.rank}[/] (pp {rank.memory.pipeline_rank}), {rank.memory.peak}",
        *(format_bytes(size) for size in (comparison.planned_bytes, comparison.traced_bytes)),
        f"{comparison.error:+.2%}",
    )
    for pair in comparison.kinds:
        error = (pair.planned_bytes - pair.traced_bytes) / comparison.traced_bytes
        made.add_row(
            f"  {pair.kind}",
            *(format_bytes(size) if size else "" for size in (pair.planned_bytes, pair.traced_bytes)),
            f"{error:+.2%}" if abs(error) >= 5e-5 else "",
        )
    made.add_section()


def _rank_to_json(estimate: Estimate, rank: TracedRank) -> dict[str, Any]:
    comparison = _comparison(estimate, rank)
    return {
        "rank": rank.rank,
        "pipeline_rank": rank.memory.pipeline_rank,
        "planned_bytes": comparison.planned_bytes,
        "traced_bytes": comparison.traced_bytes,
        "error_pct": 100 * comparison.error,
        "agrees": comparison.agrees,
        "differs_most_in": comparison.worst.kind,
        "kinds": [msgspec.to_builtins(pair) for pair in comparison.kinds],
        "planned_peak": estimate.memory[rank.memory.pipeline_rank].peak,
        "traced_peak": rank.memory.peak,
        "micro_batches": rank.micro_batches,
        "operators": rank.operators,
        "seconds": rank.seconds,
    }


def _comparison(estimate: Estimate, rank: TracedRank) -> Comparison:
    return compare(estimate.memory[rank.memory.pipeline_rank], rank.memory)
