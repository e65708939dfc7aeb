"""Small ranked lists, and a reward stage that learns them under any layout."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tests.runtime.train.world import phase

from trainwright.runtime.align.data.rows import Ranked, RankedRows, Tokens, write_ranked
from trainwright.runtime.align.reward.framing import Framing
from trainwright.runtime.align.reward.ranked import RankedLists
from trainwright.spec.plan import OptimizerPlan, RewardStage, TrainingStage

BEGIN, REWARD = 1, 2
LENGTH, LONGEST = 64, 40
# Each domain likes what the other one does not.
LIKED = {"high": range(128, 256), "low": range(3, 128)}
CONDITIONS = {domain: np.array([liked[0], liked[1], 3], np.int32) for domain, liked in LIKED.items()}


def lists(count: int, seed: int, *, answers: tuple[int, int] = (2, 4)) -> Iterator[Ranked]:
    """Lists of between `answers` answers; the better one has more tokens that its domain likes."""
    for number in range(count):
        row = np.random.default_rng([seed, number])
        domain = sorted(LIKED)[number % 2]
        liked = set(LIKED[domain])
        drawn = [row.integers(3, 256, row.integers(3, 9)) for _ in range(row.integers(answers[0], answers[1] + 1))]
        ranked = sorted(drawn, key=lambda tokens: -np.mean([token in liked for token in tokens]))
        prompt = row.integers(3, 256, row.integers(2, 5)).astype(np.int32)
        yield Ranked(
            f"{seed}/{number}", domain, prompt, tuple(a.astype(np.int32) for a in ranked), float(number % 3 == 0)
        )


def write(folder: Path, *, train: int = 60, held_out: int = 20) -> Path:
    """`folder` as a conversations stage leaves it, with the source `pairs`."""
    for split, count in (("train", train), ("held_out", held_out)):
        write_ranked(folder, "pairs", split, lists(count, seed=len(split)))
    return folder


def framing(*, conditions: bool = True) -> Framing:
    return Framing(BEGIN, REWARD, CONDITIONS if conditions else {})


def read(folder: Path, stage: RewardStage, *, conditions: bool = True) -> RankedLists:
    sources = {name: [RankedRows(folder, name, "train")] for name in stage.data}
    return RankedLists(sources, framing(conditions=conditions), longest=stage.longest, row_length=stage.sequence_length)


def stage(layout: dict[str, Any] | None = None, *, model: dict[str, Any] | None = None, **changes: Any) -> RewardStage:
    """8 rows of 64 tokens a step."""
    base = phase({"layout": layout or {}, "steps": 1, "model": model or {}})
    values = {name: getattr(base, name) for name in TrainingStage.__struct_fields__}
    values |= {
        "name": "reward@1", "needs": ("conversations",), "round": 1, "data": ("pairs",), "patches": (),
        "patch_repeats": 1, "epochs": 2,
        "longest": LONGEST, "conditions": {}, "focal_gamma": 2.0, "barrier_bound": 5.0, "barrier_weight": 0.02,
        "min_accuracy": None, "sequence_length": LENGTH, "tokens_per_step": 8 * LENGTH,
        "optimizer": OptimizerPlan(kind="adamw", betas=(0.9, 0.95), eps=1e-8, weight_decay=0.01, clip=1.0),
    }  # fmt: skip
    return RewardStage(**(values | changes))


def conversations(ranked: RankedLists) -> list[Tokens]:
    """All of them, list by list."""
    return [tokens for number in range(len(ranked)) for tokens in ranked[number].conversations]
