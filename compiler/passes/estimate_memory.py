"""What each phase needs of each pipeline rank's memory."""

from trainwright.compiler.cost.memory import estimate_rank_memory
from trainwright.compiler.draft import Draft, Pass
from trainwright.spec.plan import PhaseStage, RankMemory


def estimate_memory(draft: Draft) -> None:
    draft.memory = {stage.name: _memory(stage) for stage in draft.graph if isinstance(stage, PhaseStage)}


def _memory(stage: PhaseStage) -> tuple[RankMemory, ...]:
    return tuple(
        estimate_rank_memory(
            stage.model, stage.layout, stage.placement.chunks, rank, stage.sequence_length, stage.precision
        )
        for rank in range(stage.layout.pipeline)
    )


ESTIMATE_MEMORY = Pass(estimate_memory, needs=("graph",), gives=("memory",))
