"""What a search found: the best layouts side by side, and why each loses."""

import dataclasses
from dataclasses import replace
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trainwright.compiler.capacity import TIGHT
from trainwright.compiler.figures import rounded, size
from trainwright.compiler.present.facts import axes
from trainwright.compiler.present.tables import UNKNOWN, seconds, table
from trainwright.compiler.search.explain import why_slower, why_too_large
from trainwright.compiler.search.paste import chosen_values, to_paste
from trainwright.compiler.search.result import Candidate, Choice, ClusterTried, PhaseSearch, Search
from trainwright.spec.plan import Layout
from trainwright.spec.units import format_seconds

_TOO_LARGE = 2  # of those that would be faster, how many are shown


def print_search(search: Search, nodes: int | None, console: Console) -> None:
    """A table for each phase, and the chosen layouts as TOML; with the number of nodes, if that was chosen too."""
    if search.opened:
        console.print("No value says `auto`, so all that nobody wrote is free.")
    for names, found, choice in _alike(search):
        console.print(_table(names, found, choice, search.request.top))
        console.print(_counts(found, choice))
        console.print()
    if search.choices:
        console.print("to write it down:", style="bold")
        lines = [f"[cluster]\nnodes = {nodes}\n"] if nodes is not None else []
        console.print("\n".join([*lines, to_paste(search)]), markup=False, highlight=False, soft_wrap=True)


def print_clusters(tried: list[ClusterTried], nodes: int, console: Console) -> None:
    """The sizes of the cluster that were tried; the chosen one marked."""
    made = table("Sizes of the cluster", "", right=("nodes", "time", "GPU-hours"))
    for each in tried:
        mark = "*" if each.nodes == nodes else ""
        if each.duration_s is None:
            made.add_row(mark, f"{each.nodes:,}", "nothing fits", UNKNOWN)
        else:
            made.add_row(
                mark, f"{each.nodes:,}", f"~{format_seconds(each.duration_s)}", rounded(int(each.gpu_hours or 0))
            )
    console.print(made)
    console.print()


def search_to_json(search: Search, tried: list[ClusterTried], nodes: int) -> dict[str, Any]:
    """All that is printed of a search, in base units."""
    return {
        "objective": search.request.objective,
        "unwritten_values_were_free": search.opened,
        "nodes": nodes,
        "clusters": [dataclasses.asdict(each) for each in tried],
        "phases": [
            _phase_to_json(found, search.choices.get(index), search.request.top)
            for index, found in search.phases.items()
        ],
        "toml": to_paste(search) if search.choices else None,
    }


# --- one phase, or several that are alike ----------------------------------------------------------------------------


def _alike(search: Search) -> list[tuple[str, PhaseSearch, Choice | None]]:
    """Phases that got the same answer, together: their names, and the first one's search and choice."""
    groups: dict[object, list[int]] = {}
    for index, found in search.phases.items():
        choice = search.choices.get(index)
        same = replace(found.question, phase="", steps=0), choice.candidate.layout if choice else None
        groups.setdefault(same, []).append(index)
    return [
        (
            ", ".join(search.phases[index].question.phase for index in group),
            search.phases[group[0]],
            search.choices.get(group[0]),
        )
        for group in groups.values()
    ]


def rows(found: PhaseSearch, choice: Choice | None, top: int) -> list[tuple[Candidate, str]]:
    """The layouts to show with why each loses; none for the chosen one, which comes first."""
    if choice is None:
        return []
    chosen = choice.candidate
    others = [each for each in found.best if each is not chosen][: max(0, top - 1)]
    shown = [(chosen, ""), *((each, why_slower(each, chosen)) for each in others)]
    return [*shown, *((each, why_too_large(each, found.limit_bytes)) for each in found.too_large[:_TOO_LARGE])]


def _table(names: str, found: PhaseSearch, choice: Choice | None, top: int) -> Table:
    question = found.question
    title = f"{names}: {question.sequence_length:,} tokens x {question.sequences:,} sequences a step"
    title += f", {question.world_size:,} GPUs"
    made = table(title, "", "layout", right=("step", "of best", "memory"))
    made.add_column("why not", overflow="fold")
    for candidate, why in rows(found, choice, top):
        first = choice is not None and candidate is choice.candidate
        made.add_row(
            "*" if first else "",
            escape(describe(candidate.layout)),
            seconds(candidate.step.time_s),
            "" if choice is None or first else f"{candidate.step.time_s / choice.candidate.step.time_s - 1:+.1%}",
            size(candidate.memory.total_bytes),
            "chosen" if first else escape(why),
            style="bold" if first else None,
        )
    return made


def describe(layout: Layout) -> str:
    """The layout in the field's own words, on one line."""
    words = [axes(layout), f"micro-batch {layout.micro_batch}×{layout.micro_batches}"]
    if layout.recompute != "none":
        words.append(f"recompute {layout.recompute}")
    if layout.zero != 1:
        words.append(f"ZeRO-{layout.zero}")
    if layout.zero and layout.zero_group != layout.data:
        words.append(f"over {layout.zero_group}")
    return ", ".join(words)


def _counts(found: PhaseSearch, choice: Choice | None) -> str:
    said = f"{found.legal:,} legal layouts"
    if found.limit_bytes is not None:
        said += f", {found.fit:,} within {TIGHT:.0%} of the memory"
    said += "; the best of each number of tensor, pipeline and context ranks is shown"
    if found.left_out:
        said += f"; {found.left_out:,} more that `run` cannot execute yet are left out (`--all` takes them in)"
    if choice is not None and choice.reshard_s:
        said += f"; bringing the checkpoint before it into this layout takes {seconds(choice.reshard_s)}"
    return said


def _phase_to_json(found: PhaseSearch, choice: Choice | None, top: int) -> dict[str, Any]:
    question = found.question
    return {
        "phase": question.phase,
        "gpus": question.world_size,
        "legal": found.legal,
        "fit": found.fit,
        "left_out": found.left_out,
        "chosen": chosen_values(choice.candidate.layout, question.topology) if choice else None,
        "reshard_s": choice.reshard_s if choice else None,
        "layouts": [
            {
                "layout": msgspec.to_builtins(candidate.layout),
                "step": msgspec.to_builtins(msgspec.structs.replace(candidate.step, chunks=())),
                "memory": msgspec.to_builtins(candidate.memory),
                "why_not": why or None,
            }
            for candidate, why in rows(found, choice, top)
        ],
    }
