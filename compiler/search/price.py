"""What layouts need and take: all of a space at once and roughly, or one of them exactly."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from trainwright.compiler.cost.case import Case, ModelShape, even_part
from trainwright.compiler.search.question import Question
from trainwright.compiler.search.result import Candidate
from trainwright.compiler.search.space import Group
from trainwright.compiler.search.stand_in import peak_bytes, quick_step_time, rank_memories, step_time
from trainwright.spec.device import HardwareFile
from trainwright.spec.plan import Layout

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Figures = NDArray[np.float64]

# Rows priced at once: few enough that a formula's columns stay in a core's cache.
_BLOCK = 8192


def peaks_of(question: Question, group: Group) -> "Figures":
    """Bytes on the fullest rank under each layout."""
    return _by_block(question, group, peak_bytes)


def times_of(question: Question, group: Group, device: HardwareFile) -> "Figures":
    """Seconds of a step under each layout, by the closed form."""
    return _by_block(question, group, lambda case: quick_step_time(case, device))


def exactly(question: Question, layout: Layout, device: HardwareFile) -> Candidate:
    """The layout with the memory of its fullest rank, and with its step as it is simulated for the plan."""
    case = _case(question, msgspec.structs.asdict(layout))
    parts = tuple(even_part(case, rank) for rank in range(layout.pipeline))
    fullest = max(rank_memories(case), key=lambda rank: rank.total_bytes)
    return Candidate(layout, fullest, step_time(case, parts, device))


def _case(question: Question, values: dict[str, Any]) -> Case:
    """One layout, or columns of many, as the cost formulas take it."""
    return Case(
        model=ModelShape.of(question.model),
        sequence_length=question.sequence_length,
        precision=question.precision,
        gpus_per_node=question.gpus_per_node,
        **values,
    )


def _by_block(question: Question, group: Group, formula: Callable[[Case], Any]) -> "Figures":
    import numpy as np

    words = {
        "sequence_parallel": group.sequence_parallel,
        "zero": group.zero,
        "recompute": group.recompute,
        "schedule": group.schedule,
    }
    found = np.empty(len(group))
    for start in range(0, len(group), _BLOCK):
        block = slice(start, start + _BLOCK)
        found[block] = formula(_case(question, words | {key: column[block] for key, column in group.columns.items()}))
    return found
