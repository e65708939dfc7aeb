"""Which layers each pipeline rank holds."""

import msgspec

from trainwright.compiler.draft import Draft, Pass
from trainwright.compiler.graph import StageGraph
from trainwright.spec.plan import AnyStage, Layout, ModelChunk, ModelPlan, TrainingStage


def place_stages(draft: Draft) -> None:
    draft.placed = StageGraph(_placed(stage) for stage in draft.lowered)


def model_chunks(model: ModelPlan, layout: Layout) -> tuple[ModelChunk, ...]:
    """Megatron's assignment: chunk c of pipeline rank r holds block c * pipeline + r of equally many layers."""
    blocks = layout.pipeline * layout.virtual_pipeline
    size = model.layers // blocks
    chunks = []
    for rank in range(layout.pipeline):
        for chunk in range(layout.virtual_pipeline):
            block = chunk * layout.pipeline + rank
            chunks.append(
                ModelChunk(
                    pipeline_rank=rank,
                    chunk=chunk,
                    first_layer=block * size,
                    last_layer=(block + 1) * size,
                    embedding=block == 0,
                    head=block == blocks - 1,
                )
            )
    return tuple(chunks)


def _placed(stage: AnyStage) -> AnyStage:
    if not isinstance(stage, TrainingStage):
        return stage
    placement = msgspec.structs.replace(stage.placement, chunks=model_chunks(stage.model, stage.layout))
    return msgspec.structs.replace(stage, placement=placement)


PLACE_STAGES = Pass(place_stages, needs=("lowered",), gives=("placed",))
