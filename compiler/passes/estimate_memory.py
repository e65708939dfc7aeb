"""What each phase needs of each pipeline rank's memory."""

from trainwright.compiler.cost.case import Case, parts_of
from trainwright.compiler.cost.memory import estimate_rank_memory
from trainwright.compiler.draft import Draft, Pass
from trainwright.spec.plan import PhaseStage, RankMemory


def estimate_memory(draft: Draft) -> None:
    phases = (stage for stage in draft.graph if isinstance(stage, PhaseStage))
    draft.memory = {stage.name: _memory(stage, draft.hardware.device) for stage in phases}


def _memory(stage: PhaseStage, device: str) -> tuple[RankMemory, ...]:
    case = Case.of(stage, on_cpu=device == "cpu")
    return tuple(estimate_rank_memory(case, part) for part in parts_of(stage))


ESTIMATE_MEMORY = Pass(estimate_memory, needs=("graph", "hardware"), gives=("memory",))
