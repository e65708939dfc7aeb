"""Does the conditional prompt let one reward model hold two tastes that contradict each other?

    python bench/conditional_reward.py [--seeds 3] [--steps 120] [--out bench/results]

Two domains have the same prompts and the same two answers to each. One likes the answer with more tokens of the upper
half of the vocabulary, the other the one with fewer. A reward model is trained from random weights on both domains
together, with each domain's condition before its conversations and without, everything else being equal, and asked
about held-out prompts. Without conditions the two domains' conversations are the same, so what is right in one is wrong
in the other: the two accuracies add up to 100 %, whatever is learnt.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from trainwright.runtime.align.data.rows import Ranked, RankedRows, write_ranked
from trainwright.runtime.evaluate.process import ONE_PROCESS, one_process
from trainwright.spec.plan import (
    CheckpointPlan,
    LearningRatePlan,
    ModelPlan,
    OptimizerPlan,
    Placement,
    RewardStage,
)

VOCABULARY, FIRST = 64, 8  # tokens below FIRST are special
BEGIN, REWARD = 1, 2
DOMAINS = ("upper", "lower")
CONDITIONS = {"upper": (3, 5, 4), "lower": (3, 6, 4)}
ROW, ROWS = 128, 8  # tokens of a row, rows of a step
MODEL = ModelPlan(
    layers=2, hidden_size=64, heads=4, kv_heads=4, head_size=16, ffn_size=128, vocab_size=VOCABULARY, norm_eps=1e-5,
    init_std=0.02, attention_bias=False, tie_embeddings=False, parameters=0,
)  # fmt: skip


def pairs(count: int, seed: int) -> Iterator[Ranked]:
    """Each prompt twice, once a domain, with its two answers in opposite order."""
    random = np.random.default_rng(seed)
    half = (FIRST + VOCABULARY) // 2
    for number in range(count):
        prompt = random.integers(FIRST, VOCABULARY, random.integers(2, 6)).astype(np.int32)
        answers = []
        for upper in random.choice(9, size=2, replace=False):  # of 8 tokens
            tokens = np.concatenate(
                [random.integers(half, VOCABULARY, upper), random.integers(FIRST, half, 8 - int(upper))]
            )
            answers.append((int(upper), random.permutation(tokens).astype(np.int32)))
        more, fewer = (tokens for _, tokens in sorted(answers, key=lambda answer: -answer[0]))
        for domain, ranked in zip(DOMAINS, ((more, fewer), (fewer, more)), strict=True):
            yield Ranked(f"{number}/{domain}", domain, prompt, ranked, 0.0)


def stage(seed: int) -> RewardStage:
    """InternLM2's losses; a rate that suits a small model."""
    return RewardStage(
        name="reward@1", needs=(), model=MODEL, start_from=None, seed=seed, precision="fp32", steps=0,
        tokens_per_step=ROW * ROWS, sequence_length=ROW, sequences_per_step=ROWS, rope_base=1e4,
        learning_rate=LearningRatePlan(
            peak=3e-3, final=3e-4, warmup_steps=10, decay="cosine", decay_steps=0, offset=0
        ),
        optimizer=OptimizerPlan(kind="adamw", betas=(0.9, 0.95), eps=1e-8, weight_decay=0.01, clip=1.0),
        attention="auto", layout=ONE_PROCESS, placement=Placement(nodes=1, ranks_per_node=1, chunks=()),
        checkpoint=CheckpointPlan(every_steps=None, every_seconds=None, keep=1), log_every=1, round=1, data=("pairs",),
        patches=(), patch_repeats=1, epochs=1, longest=ROW // 2, conditions={}, focal_gamma=2.0, barrier_bound=5.0,
        barrier_weight=0.02, min_accuracy=None,
    )  # fmt: skip


def accuracies(seed: int, steps: int, *, conditional: bool) -> dict[str, float]:
    """On 200 held-out prompts, by domain. Runs inside `one_process`."""
    from msgspec import structs

    from trainwright.runtime.align.packed import as_long_as
    from trainwright.runtime.align.reward.framing import Framing
    from trainwright.runtime.align.reward.objective import RewardObjective
    from trainwright.runtime.align.reward.ranked import RankedLists, Schedule
    from trainwright.runtime.align.reward.stage import statistics
    from trainwright.runtime.train.learning_rate import learning_rate
    from trainwright.runtime.train.model import build_model
    from trainwright.runtime.train.optimizer import build_optimizer, set_learning_rate, wrap
    from trainwright.runtime.train.step import train_step

    conditions = {domain: np.array(tokens, np.int32) for domain, tokens in CONDITIONS.items()}
    framing = Framing(BEGIN, REWARD, conditions if conditional else {})
    plan = stage(seed)
    plan = structs.replace(plan, layout=structs.replace(plan.layout, micro_batch=ROWS))
    with tempfile.TemporaryDirectory() as temporary:
        # Prompts for all steps: each is seen once.
        for split, count, salt in (("train", steps * ROW * ROWS // 60, 0), ("held_out", 200, 1)):
            write_ranked(Path(temporary), "pairs", split, pairs(count, seed=2 * seed + salt))
        lists, held_out = (
            RankedLists(
                {"pairs": [RankedRows(Path(temporary), "pairs", split)]}, framing, longest=ROW // 2, row_length=ROW
            )
            for split in ("train", "held_out")
        )
        schedule = Schedule(lists, plan)
        plan = as_long_as(plan, min(len(schedule), steps * ROWS))
        objective = RewardObjective(plan, lists, schedule)
        chunks = build_model(
            MODEL, plan.layout, sequence_length=ROW, rope_base=plan.rope_base, precision="fp32", attention="auto",
            seed=seed, head="score",
        )  # fmt: skip
        wrapped = wrap(chunks, plan.layout)
        optimizer = build_optimizer(wrapped, plan.optimizer, plan.layout, plan.precision)
        for step in range(plan.steps):
            set_learning_rate(optimizer, learning_rate(plan.learning_rate, step))
            train_step(wrapped, optimizer, objective, objective.micro_batches(step))
        found = statistics(chunks, plan, held_out)
    return {domain: found["by_domain"][domain]["accuracy"] for domain in DOMAINS}


def experiment(seeds: int, steps: int) -> Mapping[str, list[dict[str, float]]]:
    """By way, the accuracies of each seed."""
    with one_process():
        return {
            way: [accuracies(seed, steps, conditional=way == "conditional") for seed in range(seeds)]
            for way in ("conditional", "plain")
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    started = time.perf_counter()
    found = experiment(arguments.seeds, arguments.steps)
    took_s = time.perf_counter() - started
    means: dict[str, Any] = {}
    for way, runs in found.items():
        means[way] = {domain: float(np.mean([run[domain] for run in runs])) for domain in DOMAINS}
        each = "; ".join(", ".join(f"{domain} {run[domain]:.3f}" for domain in DOMAINS) for run in runs)
        print(f"{way:12} " + "  ".join(f"{domain} {means[way][domain]:.3f}" for domain in DOMAINS) + f"   ({each})")
    cores = os.cpu_count()
    out = arguments.out / f"{cores}-core-{os.uname().machine}" / f"{datetime.now(UTC):%Y-%m-%d}-conditional-reward.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "versions": {name: version(name) for name in ("torch", "megatron-core")},
        "steps": arguments.steps, "tokens_per_step": ROW * ROWS, "held_out_pairs_by_domain": 200, "took_s": took_s,
        "accuracy": {way: {"mean": means[way], "by_seed": runs} for way, runs in found.items()},
    }  # fmt: skip
    out.write_text(json.dumps(content, indent=2) + "\n")
    print(f"{took_s:.0f} s; written to {out}")


if __name__ == "__main__":
    main()
