"""Small stages of alignment, and conversations that a toy model can learn.

No tokenizer takes part: rows are written as tokens. `<s>` is 1, a turn begins with 2 and its role's token, 3 ends it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tests.runtime.train.world import layout, model

from trainwright.runtime.align.data.rows import Ranked, RowWriter, write_ranked
from trainwright.spec.plan import (
    CheckpointPlan,
    DpoStage,
    LearningRatePlan,
    ModelChunk,
    OptimizerPlan,
    Placement,
    SftStage,
)

BEGIN, TURN, END = 1, 2, 3
ROLES = {"system": 4, "user": 5, "assistant": 6}
LENGTH = 64
ROWS = 8  # of a step, as `layout` fills it


def common(name: str, changes: dict[str, Any]) -> dict[str, Any]:
    """What every training stage says of itself; `layout` may hold `loss` and `precision` too."""
    options = dict(changes.get("layout", {}))
    loss, precision = options.pop("loss", "logits"), options.pop("precision", "fp32")
    run_layout = layout(options)
    per_chunk = 4 // (run_layout.pipeline * run_layout.virtual_pipeline)
    chunks = [
        ModelChunk(
            pipeline_rank=rank,
            chunk=chunk,
            embedding=(rank, chunk) == (0, 0),
            first_layer=(chunk * run_layout.pipeline + rank) * per_chunk,
            last_layer=(chunk * run_layout.pipeline + rank + 1) * per_chunk,
            head=(rank, chunk) == (run_layout.pipeline - 1, run_layout.virtual_pipeline - 1),
        )
        for chunk in range(run_layout.virtual_pipeline)
        for rank in range(run_layout.pipeline)
    ]
    return {
        "name": name,
        "needs": (),
        "model": model({"layers": 4, "hidden_size": 32, "ffn_size": 64}),
        "start_from": "before",
        "seed": 1,
        "precision": precision,
        "steps": 0,
        "tokens_per_step": ROWS * LENGTH,
        "sequence_length": LENGTH,
        "sequences_per_step": ROWS,
        "rope_base": 10_000.0,
        "learning_rate": LearningRatePlan(
            peak=changes.get("peak", 3e-3), final=3e-4, warmup_steps=1, decay="cosine", decay_steps=0, offset=0
        ),
        "optimizer": OptimizerPlan(kind="adamw", betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, clip=1.0),
        "attention": "auto",
        "loss": loss,
        "layout": run_layout,
        "placement": Placement(nodes=1, ranks_per_node=run_layout.world_size, chunks=tuple(chunks)),
        "checkpoint": CheckpointPlan(every_steps=changes.get("every_steps"), every_seconds=None, keep=2),
        "log_every": 5,
    }


def sft_stage(changes: dict[str, Any]) -> SftStage:
    return SftStage(
        **common("sft", changes),
        data=("talk", "code"),
        epochs=changes.get("epochs", 1),
        long_mixture=changes.get("long_mixture", {}),
        long_share=changes.get("long_share", 0.0),
    )


def dpo_stage(changes: dict[str, Any]) -> DpoStage:
    beta = changes.get("beta", 0.1)
    return DpoStage(**common("dpo", changes), data=("pairs",), epochs=1, longest=LENGTH // 2, beta=beta)


def turn(role: str, content: list[int]) -> tuple[list[int], list[bool]]:
    header = [TURN, ROLES[role]]
    answered = role == "assistant"
    return [*header, *content, END], [False] * len(header) + [answered] * (len(content) + 1)


def write_conversations(folder: Path, source: str, split: str, count: int, *, seed: int, longest: int = 40) -> None:
    """Conversations of one or two exchanges: the user says two numbers, the assistant counts on from them."""
    random = np.random.default_rng(seed)
    writer = RowWriter(folder, source, split, "chat")
    for number in range(count):
        segments, trained, roles = [np.array([BEGIN], np.int32)], [False], ["begin"]
        for _ in range(int(random.integers(1, 3))):
            first, length = int(random.integers(10, 200)), int(random.integers(2, longest // 4))
            for role, content in (("user", [first, first + 1]), ("assistant", list(range(first + 2, first + length)))):
                tokens, learnt = turn(role, content)
                segments.append(np.array(tokens, np.int32))
                trained += learnt
                roles.append(role)
        writer.append(f"{source}-{number}", "default", segments, roles=roles, trained_L=np.array(trained))
    writer.finish()


def write_pairs(folder: Path, split: str, count: int, *, seed: int) -> None:
    """Lists of two or three answers: each place has a word of its own, and a length."""
    write_ranked(folder, "pairs", split, _lists(count, seed))


def _lists(count: int, seed: int) -> Iterator[Ranked]:
    random = np.random.default_rng(seed)
    for number in range(count):
        first = int(random.integers(10, 200))
        prompt, _ = turn("user", [first, first + 1])
        answers = [
            np.array([20 + place] * length + [END], np.int32)
            for place, length in enumerate((9, 4, 1)[: 2 + number % 2])
        ]
        yield Ranked(f"list-{number}", "default", np.array([*prompt, TURN, 6], np.int32), tuple(answers), 0.0)
