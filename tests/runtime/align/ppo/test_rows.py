"""Packed rows give what every answer alone would give, and a step's two losses their own means."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.runtime.align.ppo import toy
from torch import Tensor

from trainwright.runtime.align.data.rows import Query
from trainwright.runtime.align.ppo import maths
from trainwright.runtime.align.ppo.entropy import read_log_probs_and_entropy
from trainwright.runtime.align.ppo.losses import PolicyLoss, PolicyTargets, ValueLoss, ValueTargets
from trainwright.runtime.align.ppo.rollouts import Rollouts
from trainwright.runtime.align.ppo.rows import Packer, answered, read_all, read_log_probs, read_scores
from trainwright.runtime.align.ppo.text import Text
from trainwright.runtime.generate.generate import Generated
from trainwright.runtime.train import parallel
from trainwright.runtime.train.model import model_of

STAGE = toy.stage({"micro_batch": 1})


@pytest.fixture(autouse=True, scope="module")
def alone() -> Iterator[None]:
    parallel.single()
    yield
    parallel.finalize()


def model(head: Any) -> Any:
    (chunk,) = model_of(STAGE, seed=3, head=head)
    return chunk


@pytest.fixture(scope="module")
def language() -> Any:
    return model("language")


@pytest.fixture(scope="module")
def rollouts() -> Rollouts:
    random = np.random.default_rng(2)
    queries, answers = [], []
    for number in range(7):
        prompt = random.integers(6, toy.VOCABULARY, random.integers(2, 12)).astype(np.int32)
        tokens = random.integers(6, toy.VOCABULARY, random.integers(1, 12)).tolist()
        queries.append(Query(f"{number}", "even", prompt))
        answers.append(Generated(tokens, [0.0] * len(tokens), stopped=number % 2 == 0))
    return Rollouts(range(7), queries, answers)


def packer(rollouts: Rollouts) -> Packer:
    return Packer(answered(rollouts, toy.Letters.begin), toy.LENGTH, STAGE.layout, 1)


def alone_outputs(chunk: Any, rollouts: Rollouts) -> list[Tensor]:
    """What the model puts out before each token of each answer, one answer after the other."""
    found = []
    for query, answer in zip(rollouts.queries, rollouts.answers, strict=True):
        tokens = torch.tensor([[1, *query.prompt.tolist(), *answer.tokens]])
        output = chunk(tokens, None, None)[0]
        found.append(output[-len(answer.tokens) - 1 : -1])
    return found


def test_log_probabilities_entropies_and_values_are_those_of_each_answer_alone(
    language: Any, rollouts: Rollouts
) -> None:
    rows = packer(rollouts)
    batches = rows.micro_batches(range(7))
    assert len(batches) < 7
    log_probs, entropy = read_all([language], read_log_probs_and_entropy, rows, batches, kinds=2)
    assert (read_all([language], read_log_probs, rows, batches)[0] == log_probs).all()
    with torch.no_grad():
        logits = torch.cat(alone_outputs(language, rollouts)).double().log_softmax(-1)
    drawn = torch.tensor([token for answer in rollouts.answers for token in answer.tokens])
    assert log_probs == pytest.approx(logits.gather(1, drawn[:, None])[:, 0].numpy(), abs=2e-5)
    assert entropy == pytest.approx(-(logits.exp() * logits).sum(1).numpy(), abs=2e-5)
    critic = model("score")
    with torch.no_grad():
        expected = torch.cat(alone_outputs(critic, rollouts)).double().numpy()
    assert read_all([critic], read_scores, rows, batches)[0] == pytest.approx(expected, abs=2e-5)


def drawn_targets(count: int) -> Any:
    return np.random.default_rng(4).normal(loc=-4.0, scale=0.5, size=(2, count))


def summed(chunk: Any, loss: Any, batches: list[Any]) -> tuple[Tensor, int]:
    """As the engine sums a step."""
    total, count = torch.zeros(()), 0
    for batch in batches:
        output, loss_of = loss.forward(chunk, batch)
        part, counted, _ = loss_of(output)
        total, count = total + part, count + int(counted)
    return total, count


def gradient(chunk: Any, loss: Tensor) -> Tensor:
    chunk.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    return torch.cat([parameter.grad.flatten() for parameter in chunk.parameters()])


def test_policy_and_text_are_each_averaged_over_their_own_count(
    language: Any, rollouts: Rollouts, tmp_path: Path
) -> None:
    toy.write_data(tmp_path)
    assert STAGE.pretrain is not None
    rows = packer(rollouts)
    known = PolicyTargets.of(*drawn_targets(rows.count))
    text = Text(STAGE, STAGE.pretrain, tmp_path)
    taken = text.take(3, rows.tokens(range(7)))
    assert sum(taken.tokens.values()) == toy.LENGTH * round(0.5 * rows.tokens(range(7)) / toy.LENGTH)
    scale = 0.5 * rows.count / taken.labels
    loss = PolicyLoss(known, 0.2, text.names, scale)
    total, count = summed(language, loss, [*rows.micro_batches(range(7)), *taken.micro_batches])
    assert count == rows.count
    found = gradient(language, total / count)

    logits = torch.cat(alone_outputs(language, rollouts)).log_softmax(-1)
    drawn = torch.tensor([token for answer in rollouts.answers for token in answer.tokens])
    log_probs = logits.gather(1, drawn[:, None])[:, 0]
    policy = maths.policy_terms(log_probs, known.log_prob_N, known.advantage_N, 0.2).loss.mean()
    losses = [
        language(batch.tokens_BS, None, batch.edges_BE, labels=batch.labels_BS)[batch.counted_BS > 0]
        for batch in taken.micro_batches
    ]
    assert len(torch.cat(losses)) == taken.labels
    expected = gradient(language, policy + 0.5 * torch.cat(losses).mean())
    assert found.numpy() == pytest.approx(expected.numpy(), abs=1e-5 * float(expected.abs().max()))


def test_the_critics_loss_is_averaged_over_all_answers(rollouts: Rollouts) -> None:
    rows = packer(rollouts)
    known = ValueTargets.of(*drawn_targets(rows.count))
    critic = model("score")
    total, count = summed(critic, ValueLoss(known, None), rows.micro_batches(range(7)))
    expected = 0.5 * (torch.cat(alone_outputs(critic, rollouts)) - known.return_N).square().mean()
    assert float(total.detach() / count) == pytest.approx(float(expected.detach()), rel=1e-5)


def test_text_is_a_pure_function_of_the_step(tmp_path: Path) -> None:
    toy.write_data(tmp_path)
    assert STAGE.pretrain is not None
    first, again = (Text(STAGE, STAGE.pretrain, tmp_path).take(5, tokens) for tokens in (200, 130))
    assert len(first.micro_batches) == 3
    assert len(again.micro_batches) == 2
    for a, b in zip(first.micro_batches, again.micro_batches, strict=False):
        assert torch.equal(a.tokens_BS, b.tokens_BS)
    other = Text(STAGE, STAGE.pretrain, tmp_path).take(6, 200)
    assert not torch.equal(other.micro_batches[0].tokens_BS, first.micro_batches[0].tokens_BS)
