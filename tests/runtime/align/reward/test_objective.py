"""What a step of reward training computes: its means, its packing, its barrier."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from msgspec import structs
from tests.runtime.align.reward import toy

from trainwright.runtime import host

host.install()

from trainwright.runtime.align.packed import as_long_as  # noqa: E402
from trainwright.runtime.align.reward.losses import barrier, ordered_pairs, ranking_loss  # noqa: E402
from trainwright.runtime.align.reward.objective import RewardObjective  # noqa: E402
from trainwright.runtime.align.reward.ranked import RankedLists, Schedule  # noqa: E402
from trainwright.runtime.align.reward.scores import score, values  # noqa: E402
from trainwright.runtime.train.model import model_of  # noqa: E402
from trainwright.runtime.train.optimizer import build_optimizer, set_learning_rate, wrap  # noqa: E402
from trainwright.runtime.train.step import train_step  # noqa: E402
from trainwright.spec.plan import RewardStage  # noqa: E402

pytestmark = pytest.mark.usefixtures("alone")


def build(stage: RewardStage) -> list[Any]:
    return model_of(stage, seed=stage.seed, head="score")


def step_of(stage: RewardStage, lists: RankedLists) -> tuple[dict[str, float], float]:
    """Metrics and gradient norm of a stage's only step."""
    wrapped = wrap(build(stage), stage.layout)
    optimizer = build_optimizer(wrapped, stage.optimizer, stage.layout, stage.precision)
    set_learning_rate(optimizer, 1e-3)
    schedule = Schedule(lists, stage)
    assert len(schedule) <= stage.sequences_per_step
    objective = RewardObjective(stage, lists, schedule)
    figures, norm = train_step(wrapped, optimizer, objective, objective.micro_batches(0))
    return objective.metrics(figures.tolist()), norm


def expected_loss(model: Any, lists: RankedLists, stage: RewardStage) -> float:
    """By the formula, each conversation on its own and unpacked."""
    ranking: list[torch.Tensor] = []
    scores: list[torch.Tensor] = []
    for number in range(len(lists)):
        ranked = lists[number]
        own = [model(torch.from_numpy(tokens[None]).long(), None, None)[0, -1] for tokens in ranked.conversations]
        for better, worse in ordered_pairs(len(own)):
            margin = ranked.margin if better == 0 else 0.0
            ranking.append(ranking_loss(own[better], own[worse], margin, stage.focal_gamma))
        scores += own
    penalty = barrier(torch.stack(scores), stage.barrier_bound).mean()
    return (torch.stack(ranking).mean() + stage.barrier_weight * penalty).item()


def cut(stage: RewardStage, micro_batch: int, micro_batches: int) -> RewardStage:
    """A stage of one epoch whose steps are so many rows."""
    layout = structs.replace(stage.layout, micro_batch=micro_batch, micro_batches=micro_batches)
    return structs.replace(stage, layout=layout, sequences_per_step=micro_batch * micro_batches, epochs=1)


def test_packed_is_unpacked_and_both_are_the_formula(folder: Path) -> None:
    packed = cut(toy.stage(), 4, 16)
    lists = toy.read(folder, packed)
    metrics, norm = step_of(packed, lists)
    # Rows as long as the longest list, which few share; and all lists in one row.
    for other in (
        cut(toy.stage(sequence_length=int(lists.lengths_N.max())), 1, 64),
        cut(toy.stage(sequence_length=int(lists.lengths_N.sum())), 1, 1),
    ):
        unpacked, unpacked_norm = step_of(other, lists)
        assert unpacked == pytest.approx(metrics, rel=1e-5, abs=1e-6)
        assert unpacked_norm == pytest.approx(norm, rel=1e-5)
    (model,) = build(packed)
    assert metrics["rm/loss"] == pytest.approx(expected_loss(model, lists, packed), rel=1e-5)


def test_a_score_does_not_depend_on_its_company(folder: Path) -> None:
    stage = toy.stage()
    chunks = build(stage)
    conversations = toy.conversations(toy.read(folder, stage))[:20]
    together = score(chunks, conversations, row_length=toy.LENGTH)
    alone = [score(chunks, [tokens], row_length=toy.LENGTH)[0] for tokens in conversations]
    assert together == pytest.approx(np.array(alone), abs=1e-6)
    assert np.array_equal(together, score(chunks, conversations, row_length=toy.LENGTH))
    assert [len(found) for found in values(chunks, conversations, row_length=toy.LENGTH)] == [
        len(tokens) for tokens in conversations
    ]
    assert chunks[0].training, "the model is left as it was"


@pytest.mark.parametrize(("weight", "low", "high"), [(0.02, 0.0, 5.0), (0.0, 50.0, 100.0)])
def test_the_barrier_brings_runaway_scores_back(folder: Path, weight: float, low: float, high: float) -> None:
    stage = toy.stage(epochs=6, barrier_weight=weight)
    lists = toy.read(folder, stage)
    chunks = build(stage)
    with torch.no_grad():
        chunks[0].output_layer.weight.mul_(100.0)
    schedule = Schedule(lists, stage)
    objective = RewardObjective(stage, lists, schedule)
    wrapped = wrap(chunks, stage.layout)
    optimizer = build_optimizer(wrapped, stage.optimizer, stage.layout, stage.precision)
    set_learning_rate(optimizer, 3e-4)
    saturated = []
    for number in range(as_long_as(stage, len(schedule)).steps):
        figures, _ = train_step(wrapped, optimizer, objective, objective.micro_batches(number))
        saturated.append(objective.metrics(figures.tolist())["rm/saturated_pct"])
    assert saturated[0] > 90.0
    assert low <= np.mean(saturated[-10:]) <= high


def test_every_list_is_in_one_row_of_every_epoch_and_the_rest_is_told(folder: Path) -> None:
    stage = toy.stage(epochs=2, longest=12, sequence_length=30)
    lists = toy.read(folder, stage)
    assert len(lists) + len(lists.left_out) == 60
    why = " ".join(row["why"] for row in lists.left_out)
    assert "longer than the longest allowed, 12" in why
    assert "and a row has 30" in why
    schedule = Schedule(lists, stage)
    rows = [row for step in range(as_long_as(stage, len(schedule)).steps) for row in schedule.rows(step, 0, 8)]
    assert sorted(number for row in rows for number in row) == sorted([*range(len(lists))] * 2)
    assert all(sum(lists.lengths_N[row]) <= 30 for row in rows)
    assert pairs_of(lists, rows) == sum(
        schedule.counts(step)[0] for step in range(as_long_as(stage, len(schedule)).steps)
    )


def pairs_of(lists: RankedLists, rows: Sequence[Sequence[int]]) -> int:
    return sum(len(ordered_pairs(len(lists[number].conversations))) for row in rows for number in row)


def test_conditions_stand_behind_the_first_token_and_the_reward_token_ends_all(folder: Path) -> None:
    lists, plain = (toy.read(folder, toy.stage(), conditions=on) for on in (True, False))
    for number in range(len(lists)):
        condition = toy.CONDITIONS[lists[number].domain]
        for tokens, bare in zip(lists[number].conversations, plain[number].conversations, strict=True):
            assert tokens[0] == toy.BEGIN
            assert tokens[-1] == toy.REWARD
            assert tokens[1 : 1 + len(condition)].tolist() == condition.tolist()
            assert np.delete(tokens, np.arange(1, 1 + len(condition))).tolist() == bare.tolist()
