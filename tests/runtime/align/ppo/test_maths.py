"""PPO's formulas against a plain reference that goes through one answer after the other, token by token."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from trainwright.runtime.align.ppo import maths


def ragged(seed: int) -> tuple[np.random.Generator, NDArray[np.int64]]:
    random = np.random.default_rng(seed)
    return random, np.array([1, *random.integers(1, 40, 9)])


def split(flat: NDArray[np.float64], lengths: NDArray[np.int64]) -> list[list[float]]:
    return [part.tolist() for part in np.split(flat, np.cumsum(lengths)[:-1])]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("discount", "gae_lambda"), [(1.0, 0.99), (0.97, 0.9), (1.0, 1.0), (0.9, 0.0)])
def test_rewards_and_advantages_are_those_of_a_plain_loop(seed: int, discount: float, gae_lambda: float) -> None:
    random, lengths = ragged(seed)
    log_probs, reference, values = random.normal(size=(3, lengths.sum()))
    scores = random.normal(size=len(lengths))
    rewards = maths.token_rewards(log_probs, reference, scores, lengths, kl=0.01)
    found, returns = maths.advantages(rewards, values, lengths, discount=discount, gae_lambda=gae_lambda)

    for row, (actor, start, value) in enumerate(
        zip(split(log_probs, lengths), split(reference, lengths), split(values, lengths), strict=True)
    ):
        reward = [-0.01 * (a - b) for a, b in zip(actor, start, strict=True)]
        reward[-1] += scores[row]
        delta = [
            reward[t] + discount * (value[t + 1] if t + 1 < len(value) else 0.0) - value[t] for t in range(len(value))
        ]
        expected = [
            sum((discount * gae_lambda) ** (later - t) * delta[later] for later in range(t, len(value)))
            for t in range(len(value))
        ]
        assert split(rewards, lengths)[row] == pytest.approx(reward, abs=1e-12)
        assert split(found, lengths)[row] == pytest.approx(expected, abs=1e-12)
        assert split(returns, lengths)[row] == pytest.approx(
            [a + v for a, v in zip(expected, value, strict=True)], abs=1e-12
        )


def test_without_discount_and_at_lambda_1_a_return_is_the_sum_of_the_rewards_to_come() -> None:
    random, lengths = ragged(7)
    rewards, values = random.normal(size=(2, lengths.sum()))
    _, returns = maths.advantages(rewards, values, lengths, discount=1.0, gae_lambda=1.0)
    to_come = [list(np.cumsum(row[::-1])[::-1]) for row in split(rewards, lengths)]
    assert returns == pytest.approx(np.concatenate(to_come), abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_the_policy_loss_and_its_figures_are_those_of_a_plain_loop(seed: int) -> None:
    random, lengths = ragged(seed)
    new, old, advantages = random.normal(scale=0.3, size=(3, lengths.sum()))
    terms = maths.policy_terms(torch.tensor(new), torch.tensor(old), torch.tensor(advantages), clip=0.2)
    for token in range(len(new)):
        ratio = math.exp(new[token] - old[token])
        bounded = min(max(ratio, 0.8), 1.2)
        a = advantages[token]
        assert terms.loss[token].item() == pytest.approx(-min(a * ratio, a * bounded), abs=1e-12)
        assert terms.clipped[token].item() == (abs(ratio - 1) > 0.2)
        assert terms.kl[token].item() == pytest.approx(ratio - 1 - math.log(ratio), abs=1e-12)
    assert 0 < terms.clipped.sum() < len(new)


@pytest.mark.parametrize("clip", [None, 0.2])
def test_the_value_loss_is_that_of_a_plain_loop(clip: float | None) -> None:
    random, lengths = ragged(11)
    values, old, returns = random.normal(size=(3, lengths.sum()))
    found = maths.value_loss(torch.tensor(values), torch.tensor(old), torch.tensor(returns), clip=clip)
    for token in range(len(values)):
        expected = 0.5 * (values[token] - returns[token]) ** 2
        if clip is not None:
            near = old[token] + min(max(values[token] - old[token], -clip), clip)
            expected = max(expected, 0.5 * (near - returns[token]) ** 2)
        assert found[token].item() == pytest.approx(expected, abs=1e-12)


def test_gradients_in_fp32_are_those_of_float64_finite_differences() -> None:
    random, lengths = ragged(13)
    new, old, advantages = random.normal(scale=0.3, size=(3, lengths.sum()))

    def policy(x: NDArray[np.float64]) -> float:
        ratio = np.exp(x - old)
        return float(np.maximum(-advantages * ratio, -advantages * np.clip(ratio, 0.8, 1.2)).sum() / len(x))

    def value(x: NDArray[np.float64]) -> float:
        near = old + np.clip(x - old, -0.2, 0.2)
        return float(0.5 * np.maximum((x - advantages) ** 2, (near - advantages) ** 2).sum() / len(x))

    before, target = (torch.tensor(x, dtype=torch.float32) for x in (old, advantages))
    losses: list[tuple[Callable[[NDArray[np.float64]], float], Callable[[torch.Tensor], torch.Tensor]]] = [
        (policy, lambda x: maths.policy_terms(x, before, target, clip=0.2).loss),
        (value, lambda x: maths.value_loss(x, before, target, clip=0.2)),
    ]
    for function, loss in losses:
        variable = torch.tensor(new, dtype=torch.float32, requires_grad=True)
        (loss(variable).sum() / len(new)).backward()  # type: ignore[no-untyped-call]
        step = 1e-6
        numeric = [
            (function(new + step * unit) - function(new - step * unit)) / (2 * step) for unit in np.eye(len(new))
        ]
        assert variable.grad is not None
        assert variable.grad.numpy() == pytest.approx(np.array(numeric), abs=2e-6)


def test_explained_variance_and_normalisation() -> None:
    random = np.random.default_rng(3)
    returns = random.normal(loc=2.0, size=500)
    assert maths.explained_variance(returns, returns) == 1.0
    assert maths.explained_variance(np.full(500, 7.0), returns) == pytest.approx(0.0, abs=1e-12)
    assert maths.explained_variance(np.zeros(3), np.ones(3)) == 0.0
    flat = maths.normalised(returns)
    assert (flat.mean(), flat.std()) == (pytest.approx(0.0, abs=1e-12), pytest.approx(1.0, abs=1e-6))
