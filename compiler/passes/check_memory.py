"""Every rank of every phase fits on its card; where one does not, what would make it fit."""

from collections.abc import Iterator

from trainwright.compiler.capacity import TIGHT
from trainwright.compiler.draft import Check, Draft
from trainwright.compiler.figures import size
from trainwright.compiler.search.advice import advice
from trainwright.compiler.search.ask import question_of
from trainwright.spec.diagnostics import Diagnostic, Span
from trainwright.spec.plan import PhaseStage, RankMemory, TrainingStage

_TERMS = {
    "parameters_bytes": "weights",
    "gradients_bytes": "gradients",
    "optimizer_bytes": "optimizer state",
    "activations_bytes": "activations",
    "logits_bytes": "logits",
    "communication_bytes": "exchange buffers",
    "temporaries_bytes": "temporaries",
    "framework_bytes": "device context",
}


def check_memory(draft: Draft) -> Iterator[Diagnostic]:
    capacity = draft.hardware.memory_bytes
    if capacity is None:
        return
    for stage in draft.graph:
        if not isinstance(stage, TrainingStage):
            continue
        fullest = max(draft.memory[stage.name], key=lambda rank: rank.total_bytes)
        if fullest.total_bytes <= TIGHT * capacity:
            continue
        over = fullest.total_bytes - capacity
        rank = f"pipeline rank {fullest.pipeline_rank}" if stage.layout.pipeline > 1 else "each rank"
        if over > 0:
            beside = f"{size(over)} more than a `{draft.hardware.name}` has"
        else:
            beside = f"{fullest.total_bytes / capacity:.0%} of a `{draft.hardware.name}`"
        kind = "phase" if isinstance(stage, PhaseStage) else "stage"
        yield Diagnostic(
            "TW330" if over > 0 else "TW331",
            f"{kind} `{stage.name}` needs {size(fullest.total_bytes)} on {rank}, {beside}: {_terms(fullest)}",
            _where(draft, stage),
            _cure(draft, stage),
            draft.label(f"{size(capacity)} each", "cluster", "gpu"),
            "error" if over > 0 else "warning",
        )


def _where(draft: Draft, stage: TrainingStage) -> Span | None:
    if isinstance(stage, PhaseStage):
        return draft.value_at("phases", stage.index, "name")
    return draft.key_at("alignment", stage.name.partition("@")[0])


def _cure(draft: Draft, stage: TrainingStage) -> str | None:
    if isinstance(stage, PhaseStage):
        return advice(question_of(draft, stage.index), draft.hardware.figures, stage.layout)
    return "give it a `topology` of its own: larger `tensor`, full `recompute`, or more rows a step for `zero` to share"


def _terms(memory: RankMemory) -> str:
    """The terms that matter, the largest first."""
    sizes = {name: getattr(memory, key) for key, name in _TERMS.items()}
    largest = sorted(sizes, key=lambda name: -sizes[name])
    return ", ".join(f"{name} {size(sizes[name])}" for name in largest if sizes[name] >= 0.01 * memory.total_bytes)


CHECK_MEMORY = Check(
    check_memory,
    needs=(
        "spec.cluster",
        "spec.kernels",
        "spec.phases",
        "spec.run",
        "model",
        "courses",
        "open_topologies",
        "graph",
        "memory",
        "hardware",
    ),
    holds="memory suffices",
)
