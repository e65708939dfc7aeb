"""Draws are those of the nucleus' distribution, and a row's are its own."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from trainwright.runtime.generate.sampling import Sampling, draw, log_probs, uniforms


def reference(logits_V: NDArray[np.float64], temperature: float, top_p: float, uniform: float) -> int:
    """The inverse of the nucleus' cumulative distribution, by sorting everything in float64."""
    weights = np.exp((logits_V - logits_V.max()) / temperature)
    order = np.argsort(-weights, kind="stable")
    cumulative = np.cumsum(weights[order] / weights.sum())
    inside = int(np.searchsorted(cumulative, top_p)) + 1
    inside = min(inside, len(order))
    place = int(np.searchsorted(cumulative[:inside], uniform * cumulative[inside - 1], side="right"))
    return int(order[min(place, inside - 1)])


@pytest.mark.parametrize("top_p", [0.0, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("temperature", [0.7, 1.0, 2.0])
def test_draws_invert_the_cumulative_distribution_of_the_nucleus(temperature: float, top_p: float) -> None:
    random = np.random.default_rng(7)
    # From one likely token to nearly all alike, and with ties: halves, as bf16 has many.
    logits_BV = np.concatenate([random.normal(0, scale, (40, 500)) for scale in (0.1, 1, 5)])
    logits_BV[::2] = np.round(logits_BV[::2] * 2) / 2
    uniform_B = random.random(len(logits_BV))
    sampling = Sampling(max_tokens=1, temperature=temperature, top_p=top_p)
    drawn = draw(torch.from_numpy(logits_BV).float(), sampling, torch.from_numpy(uniform_B)).tolist()
    rounded_BV = logits_BV.astype(np.float32).astype(np.float64)
    expected = [reference(row, temperature, top_p, uniform) for row, uniform in zip(rounded_BV, uniform_B, strict=True)]
    # Where a number falls on an edge to within fp32, its neighbour may be drawn.
    assert np.mean(np.array(drawn) == np.array(expected)) > 0.98


def test_the_nucleus_is_the_smallest_set_that_reaches_top_p() -> None:
    logits_BV = torch.tensor([0.1, 0.2, 0.4, 0.3]).log().expand(200, 4)
    uniform_B = torch.from_numpy(uniforms([3], 200)[0])

    def drawn(top_p: float) -> set[int]:
        return set(draw(logits_BV, Sampling(max_tokens=1, temperature=1.0, top_p=top_p), uniform_B).tolist())

    assert drawn(0.0) == {2}
    assert drawn(0.39) == {2}
    assert drawn(0.6) == {2, 3}
    assert drawn(0.75) == {1, 2, 3}
    assert drawn(1.0) == {0, 1, 2, 3}


def test_draws_follow_the_probabilities() -> None:
    logits_BV = torch.tensor([0.1, 0.2, 0.4, 0.3]).log().expand(4000, 4)
    sampling = Sampling(max_tokens=1, temperature=0.5, top_p=1.0)
    squares = np.array([0.01, 0.04, 0.16, 0.09])
    expected = 4000 * squares / squares.sum()
    # Along a row, and down a column of seeds that are neighbours: Pearson's statistic, 3 degrees of freedom, at 0.1 %.
    for numbers in (uniforms([5], 4000)[0], uniforms(range(4000), 1)[:, 0]):
        counts = np.bincount(draw(logits_BV, sampling, torch.from_numpy(numbers)).numpy(), minlength=4)
        assert ((counts - expected) ** 2 / expected).sum() < 16.27


def test_numbers_depend_on_the_seed_and_their_place_alone() -> None:
    wide = uniforms([1, 2, 1], 30)
    assert np.array_equal(wide[0], wide[2])
    assert not np.array_equal(wide[0], wide[1])
    assert np.array_equal(uniforms([2], 7)[0], wide[1, :7])
    assert wide.min() >= 0
    assert wide.max() < 1


def test_log_probs_are_of_the_whole_vocabulary_at_temperature_one() -> None:
    logits_BV = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    token_B = torch.tensor([4, 49, 0])
    torch.testing.assert_close(log_probs(logits_BV, token_B), logits_BV.log_softmax(-1)[torch.arange(3), token_B])
