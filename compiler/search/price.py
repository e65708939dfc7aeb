"""What layouts need and take: all of a space at once and roughly, or one of them exactly."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from trainwright.compiler.cost.case import Case, ModelShape, even_part, fuses_loss
from trainwright.compiler.cost.memory import estimate_rank_memory, peak_bytes
from trainwright.compiler.cost.time import quick_step_time, step_time
from trainwright.compiler.exchange import context_exchange
from trainwright.compiler.search.question import Question
from trainwright.compiler.search.result import Candidate
from trainwright.compiler.search.space import Group
from trainwright.spec.auto import AUTO_KEYS
from trainwright.spec.device import HardwareFile
from trainwright.spec.plan import Layout

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Figures = NDArray[np.float64]

# Rows priced at once: few enough that a formula's columns stay in a core's cache.
_BLOCK = 8192


def peaks_of(question: Question, group: Group, device: HardwareFile) -> "Figures":
    """Bytes on the fullest rank under each layout."""
    return _by_block(question, group, device, peak_bytes)


def times_of(question: Question, group: Group, device: HardwareFile) -> "Figures":
    """Seconds of a step under each layout, by the closed form."""
    return _by_block(question, group, device, lambda case: quick_step_time(case, device))


def exactly(question: Question, layout: Layout, device: HardwareFile) -> Candidate:
    """The layout with the memory of its fullest rank, and with its step as it is simulated for the plan."""
    case = _case(question, device, {key: getattr(layout, key) for key in (*AUTO_KEYS, "micro_batches")})
    parts = tuple(even_part(case, rank) for rank in range(layout.pipeline))
    ends = [estimate_rank_memory(case, part) for part in (parts[0], parts[-1])]
    return Candidate(layout, max(ends, key=lambda rank: rank.total_bytes), step_time(case, parts, device))


def _case(question: Question, device: HardwareFile, values: dict[str, Any]) -> Case:
    """One layout, or columns of many, as the cost formulas take it; what is never searched for is as written."""
    topology = question.topology
    tokens = question.sequence_length * values["micro_batch"] / values["context"]
    return Case(
        model=ModelShape.of(question.model),
        sequence_length=question.sequence_length,
        precision=question.precision,
        gpus_per_node=question.gpus_per_node,
        recompute_modules=topology.recompute_modules or ("core_attention",),
        recompute_layers=topology.recompute_layers,
        keep_gathered=topology.tensor_mode == "msp",
        context_exchange=context_exchange(topology),
        context_heads=topology.context_heads,
        weight=topology.weight,
        offload_optimizer=1.0 * ("optimizer" in topology.offload),
        offload_activations=1.0 * ("activations" in topology.offload),
        fused_loss=fuses_loss(question.loss, tokens, question.model.vocab_size / values["tensor"]),
        on_cpu=device.device == "cpu",
        **values,
    )


def _by_block(question: Question, group: Group, device: HardwareFile, formula: Callable[[Case], Any]) -> "Figures":
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
        columns = {key: column[block] for key, column in group.columns.items()}
        found[block] = formula(_case(question, device, words | columns))
    return found
