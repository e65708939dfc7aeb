"""Every rank of every phase fits on its card."""

from collections.abc import Iterator

from trainwright.compiler.draft import Check, Draft
from trainwright.compiler.figures import size
from trainwright.spec.diagnostics import Diagnostic
from trainwright.spec.plan import PhaseStage, RankMemory

TIGHT = 0.9  # of the capacity: context, communicators and fragmentation are not in the estimate

_TERMS = {
    "parameters_bytes": "weights",
    "gradients_bytes": "gradients",
    "optimizer_bytes": "optimizer state",
    "activations_bytes": "activations",
    "logits_bytes": "logits",
}


def check_memory(draft: Draft) -> Iterator[Diagnostic]:
    capacity = draft.hardware.memory_bytes
    if capacity is None:
        return
    for stage in draft.graph:
        if not isinstance(stage, PhaseStage):
            continue
        fullest = max(draft.memory[stage.name], key=lambda rank: rank.total_bytes)
        if fullest.total_bytes <= TIGHT * capacity:
            continue
        over = fullest.total_bytes > capacity
        needs = f"{size(fullest.total_bytes)} of the {size(capacity)} of `{draft.hardware.name}`"
        rank = f"pipeline rank {fullest.pipeline_rank}" if stage.layout.pipeline > 1 else "each rank"
        yield Diagnostic(
            "TW330" if over else "TW331",
            f"phase `{stage.name}` needs {needs} on {rank}: {_terms(fullest)}",
            draft.value_at("phases", stage.index, "name"),
            _cure(stage, fullest),
            draft.label("this card", "cluster", "gpu"),
            "error" if over else "warning",
        )


def _terms(memory: RankMemory) -> str:
    sizes = {name: getattr(memory, key) for key, name in _TERMS.items()}
    largest = sorted(sizes, key=lambda name: -sizes[name])
    return ", ".join(f"{name} {size(sizes[name])}" for name in largest if sizes[name])


def _cure(stage: PhaseStage, memory: RankMemory) -> str:
    """What lowers the largest term at the least cost."""
    layout = stage.layout
    activations = memory.activations_bytes + memory.logits_bytes
    if activations > memory.total_bytes - activations:
        if layout.micro_batch > 1:
            return f'take `micro_batch` {layout.micro_batch // 2:,}, or `recompute = "full"`'
        if layout.recompute != "full":
            return '`recompute = "full"` keeps only the input of each layer'
        return "split a sequence over more ranks: a larger `tensor` or `context`"
    if layout.zero == 0 and layout.data > 1:
        return "`zero = 1` shares the optimizer's state among the data-parallel ranks"
    return "hold fewer parameters a rank: a larger `tensor` or `pipeline`"


CHECK_MEMORY = Check(check_memory, needs=("graph", "memory", "hardware"), holds="memory suffices")
