"""What each training stage needs of each pipeline rank's memory."""

from trainwright.compiler.cost.case import Case, parts_of
from trainwright.compiler.cost.memory import estimate_rank_memory
from trainwright.compiler.draft import Draft, Pass
from trainwright.spec.plan import PpoStage, RankMemory, TrainingStage


def estimate_memory(draft: Draft) -> None:
    trained = (stage for stage in draft.graph if isinstance(stage, TrainingStage))
    draft.memory = {stage.name: _memory(draft, stage) for stage in trained}


def _memory(draft: Draft, stage: TrainingStage) -> tuple[RankMemory, ...]:
    if isinstance(stage, PpoStage):  # of the fullest moment
        return (next(each.fullest for each in draft.iterations[stage.name] if each.chosen),)
    case = Case.of(stage, on_cpu=draft.hardware.device == "cpu")
    return tuple(estimate_rank_memory(case, part) for part in parts_of(stage))


ESTIMATE_MEMORY = Pass(estimate_memory, needs=("graph", "hardware", "iterations"), gives=("memory",))
