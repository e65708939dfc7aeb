"""A small phase under any layout."""

from typing import Any

from trainwright.spec.plan import (
    CheckpointPlan,
    Layout,
    LearningRatePlan,
    ModelChunk,
    ModelPlan,
    OptimizerPlan,
    PhaseStage,
    Placement,
)

MODEL = ModelPlan(
    layers=4, hidden_size=512, heads=8, kv_heads=4, head_size=64, ffn_size=1408, vocab_size=4096, norm_eps=1e-5,
    init_std=0.02, attention_bias=False, tie_embeddings=False, parameters=0,
)  # fmt: skip


def phase(precision: Any = "bf16", loss: Any = "logits", **changes: Any) -> PhaseStage:
    """Two micro-batches of a sequence of 512 tokens, on one process but for `changes` of the layout."""
    values: dict[str, Any] = {
        "tensor": 1, "pipeline": 1, "virtual_pipeline": 1, "context": 1, "data": 1, "zero": 1, "micro_batch": 1,
        "micro_batches": 2, "recompute": "none",
        "sequence_parallel": changes.get("tensor", 1) > 1,
        "zero_group": changes.get("data", 1),
        "schedule": "interleaved" if "virtual_pipeline" in changes else "1f1b",
    }  # fmt: skip
    layout = Layout(**{**values, **changes})
    return PhaseStage(
        name="small",
        needs=(),
        model=MODEL,
        start_from=None,
        index=0,
        seed=1,
        precision=precision,
        tokens=0,
        steps=1,
        tokens_per_step=0,
        sequence_length=512,
        sequences_per_step=0,
        mixture={"prose": 1.0},
        rope_base=1e4,
        learning_rate=LearningRatePlan(peak=1e-3, final=1e-4, warmup_steps=0, decay="cosine", decay_steps=1, offset=0),
        optimizer=OptimizerPlan(kind="adamw", betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, clip=1.0),
        attention="auto",
        loss=loss,
        layout=layout,
        placement=Placement(nodes=1, ranks_per_node=layout.world_size, chunks=_chunks(layout)),
        checkpoint=CheckpointPlan(every_steps=None, every_seconds=None, keep=1),
        log_every=1,
    )


def _chunks(layout: Layout) -> tuple[ModelChunk, ...]:
    blocks = layout.pipeline * layout.virtual_pipeline
    size = MODEL.layers // blocks
    return tuple(
        ModelChunk(
            pipeline_rank=block % layout.pipeline, chunk=block // layout.pipeline, first_layer=block * size,
            last_layer=(block + 1) * size, embedding=block == 0, head=block == blocks - 1,
        )
        for block in range(blocks)
    )  # fmt: skip
