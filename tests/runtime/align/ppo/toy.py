"""A round of PPO on toy models: queries, text, and the results of the stages before it, all made here.

No tokenizer takes part: `Letters` stands in, whose tokens are numbers.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from msgspec import structs
from tests.runtime.train.world import phase

from trainwright.runtime.align.data.rows import RowWriter
from trainwright.runtime.data.indexed import token_dtype, tokens_path, write_documents
from trainwright.runtime.train import checkpoint
from trainwright.runtime.train.model import model_of
from trainwright.runtime.train.optimizer import build_optimizer, wrap
from trainwright.spec.artefact import CHECKPOINTS
from trainwright.spec.plan import ConditionPlan, LearningRatePlan, PpoStage, PretrainPlan, TrainingStage

LENGTH, NEW, VOCABULARY = 32, 12, 64


class Letters:
    """A vocabulary of 64 tokens."""

    size, begin, end, reward = VOCABULARY, 1, 2, 4

    def special(self, name: str) -> int:
        return {"<|im_end|>": 3, "<|im_start|>": 5}[name]

    def encode(self, text: str) -> list[int]:
        return [6 + byte % 50 for byte in text.encode()]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(str(id_) for id_ in ids if id_ > 5)


def stage(
    layout: dict[str, Any] | None = None, *, every_steps: int = 1, rate: float = 3e-3, **changes: Any
) -> PpoStage:
    """Three iterations of 8 queries in rows of 32 tokens; in the first one the critic learns alone."""
    layout = dict(layout or {})
    critics = layout.pop("critic", layout)
    base = phase({"layout": layout, "steps": 1, "model": {"vocab_size": VOCABULARY, "init_std": 0.1}})
    values = {name: getattr(base, name) for name in TrainingStage.__struct_fields__}
    constant = LearningRatePlan(peak=rate, final=rate, warmup_steps=0, decay="constant", decay_steps=3, offset=0)
    values |= {
        "name": "ppo@1", "needs": (), "steps": 3, "learning_rate": constant, "start_from": "sft", "round": 1,
        "reference_from": "sft", "reward_from": "reward@1", "critic_from": None, "queries": "questions",
        "conditions": {"odd": ConditionPlan(path="odd.txt", digest=None)}, "max_new_tokens": NEW, "probes": 7,
        "temperature": 1.0, "top_p": 0.9, "kl": 0.01, "discount": 1.0, "gae_lambda": 0.99, "clip": 0.2,
        "value_clip": None, "normalise_advantages": False, "mini_batches": 1, "epochs": 1, "critic_warmup": 1,
        "critic_learning_rate": rate, "placement_kind": "colocated", "offload": True, "sequence_length": LENGTH,
        "tokens_per_step": 8 * LENGTH, "critic_layout": phase({"layout": critics, "steps": 1}).layout,
        "pretrain": PretrainPlan(mixture={"prose": 0.5, "code": 0.5}, weight=0.5, share=0.5, sequence_length=LENGTH),
    }  # fmt: skip
    made = PpoStage(**(values | changes))
    return structs.replace(made, checkpoint=structs.replace(made.checkpoint, every_steps=every_steps))


def write_data(folder: Path) -> None:
    """Queries of two domains, one of them with a condition; documents of two sources; the condition's file."""
    random = np.random.default_rng(5)
    for split, count in (("train", 20), ("held_out", 5)):
        writer = RowWriter(folder, "questions", split, "prompts")
        for number in range(count):
            prompt = random.integers(6, VOCABULARY, 30 if number == 7 else random.integers(3, 15)).astype(np.int32)
            writer.append(f"{split}-{number}", ("even", "odd")[number % 2], [prompt])
        writer.finish()
    for source in ("prose", "code"):
        documents = [random.integers(6, VOCABULARY, 40) for _ in range(6)]
        write_documents(tokens_path(folder, source, "train"), documents, token_dtype(VOCABULARY))
    (folder / "odd.txt").write_text("be odd\n", encoding="utf-8")


def write_starts(folder: Path, stage: PpoStage) -> None:
    """The results of `sft` and `reward@1`: random models. A collective of the stage's layout."""
    heads: list[tuple[str, Literal["language", "score"], int]] = [("sft", "language", 1), ("reward@1", "score", 2)]
    for name, head, seed in heads:
        chunks = model_of(stage, seed=seed, head=head)
        optimizer = build_optimizer(wrap(chunks, stage.layout), stage.optimizer, stage.layout, stage.precision)
        state = checkpoint.TrainState(
            stage=name, step=1, optimizer_steps=1, consumed_tokens=0, consumed_tokens_by_source={}
        )
        checkpoint.save(folder / name / CHECKPOINTS, chunks, optimizer, state, 1)


def inputs(folder: Path) -> dict[str, Path]:
    """The folders of the results that the stage needs."""
    made_here = dict.fromkeys(("conversations", "tokenize", "tokenizer"), folder)
    return made_here | {name: folder / name for name in ("sft", "reward@1")}
