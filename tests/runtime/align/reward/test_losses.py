"""Losses of the reward model against closed forms, limits and float64 autograd."""

import math

import pytest
import torch

from trainwright.runtime.align.reward.losses import EDGE, barrier, is_saturated, ordered_pairs, ranking_loss


def lead(probability: float) -> torch.Tensor:
    """The difference of scores that gives this probability."""
    return torch.tensor([math.log(probability / (1 - probability))])


@pytest.mark.parametrize(
    ("probability", "gamma", "expected"),
    [
        (0.5, 2.0, math.log(2)), (0.9, 2.0, 0.004214), (0.25, 2.0, 1.3863), (0.9, 0.0, -math.log(0.9)),
        (0.9, 1.0, 0.021072),
    ],
)  # fmt: skip
def test_ranking_loss_has_its_closed_forms(probability: float, gamma: float, expected: float) -> None:
    assert ranking_loss(lead(probability), torch.zeros(1), 0.0, gamma).item() == pytest.approx(
        expected, abs=1e-6, rel=5e-5
    )


def test_a_margin_is_by_how_much_the_better_answer_is_to_lead() -> None:
    chosen, rejected = torch.tensor([1.7]), torch.tensor([0.2])
    assert ranking_loss(chosen, rejected, 1.5, 2.0).item() == pytest.approx(math.log(2), rel=1e-5)
    assert torch.equal(
        ranking_loss(chosen, rejected, torch.tensor([0.5]), 2.0), ranking_loss(chosen - 0.5, rejected, 0.0, 2.0)
    )


@pytest.mark.parametrize(("score", "expected"), [(0.0, -3.2189), (4.9, 0.0100), (-4.9, 0.0100)])
def test_barrier_has_its_closed_forms(score: float, expected: float) -> None:
    assert barrier(torch.tensor([score]), 5.0).item() == pytest.approx(expected, abs=1e-4)


def test_gradients_are_those_of_float64_autograd_of_the_plain_formulas() -> None:
    generator = torch.Generator().manual_seed(0)
    chosen, rejected = (torch.randn(2, 64, generator=generator, dtype=torch.float64) * 3).requires_grad_()
    p = torch.sigmoid(chosen - rejected - 0.3)
    plain = -((1 - 2 * (p - 0.5).relu()) ** 2) * p.log()
    wanted = torch.autograd.grad(plain.sum(), (chosen, rejected))
    ours = ranking_loss(chosen, rejected, 0.3, 2.0)
    assert torch.allclose(ours, plain)
    single = [value.detach().float().requires_grad_() for value in (chosen, rejected)]
    for mine, exact, from_float in zip(
        torch.autograd.grad(ours.sum(), (chosen, rejected)),
        wanted,
        torch.autograd.grad(ranking_loss(single[0], single[1], 0.3, 2.0).sum(), single),
        strict=True,
    ):
        assert torch.allclose(mine, exact, rtol=1e-10)
        assert torch.allclose(from_float.double(), exact, atol=1e-6)
    assert torch.autograd.gradcheck(lambda c, r: ranking_loss(c, r, 0.3, 2.0), (chosen, rejected))
    scores = torch.tensor([-7.0, -4.9999, -4.9, 0.0, 3.0, 4.99, 6.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: barrier(x, 5.0), (scores,))


def test_nothing_overflows_far_from_zero() -> None:
    far = torch.tensor([-1e4, -100.0, 100.0, 1e4], requires_grad=True)
    loss = ranking_loss(far, torch.zeros(4), 0.0, 2.0)
    (gradient,) = torch.autograd.grad(loss.sum(), far)
    assert loss.tolist() == pytest.approx([1e4, 100.0, 0.0, 0.0])
    assert gradient.tolist() == pytest.approx([-1.0, -1.0, 0.0, 0.0])
    assert torch.isfinite(barrier(far, 5.0)).all()


def test_beyond_the_bound_the_barrier_is_a_line_that_pulls_harder_than_any_pair_pushes() -> None:
    scores = torch.tensor([4.98, 4.995, 5.0, 5.5, 50.0], dtype=torch.float64, requires_grad=True)
    values = barrier(scores, 5.0)
    (pull,) = torch.autograd.grad(values.sum(), scores)
    edge = 5.0 * (1 - EDGE)
    assert pull.tolist()[2:] == pytest.approx([1 / (5 - edge) - 1 / (5 + edge)] * 3)
    assert pull[0] < pull[1] <= pull[2]
    assert (values.diff() > 0).all()
    leads = torch.linspace(-20, 20, 4001, dtype=torch.float64, requires_grad=True)
    (push,) = torch.autograd.grad(ranking_loss(leads, torch.zeros_like(leads), 0.0, 2.0).sum(), leads)
    assert 0.02 * pull[-1] > 2 * push.abs().max()  # a pair to two scores
    assert push.abs().max() <= math.log(2) + 0.5
    assert is_saturated(scores.float(), 5.0).tolist() == [False, False, True, True, True]


def test_half_precision_is_computed_in_single() -> None:
    loss = ranking_loss(torch.zeros(1, dtype=torch.bfloat16), torch.zeros(1, dtype=torch.bfloat16), 0.0, 2.0)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.log(2), rel=1e-6)
    assert barrier(torch.zeros(1, dtype=torch.bfloat16), 5.0).dtype == torch.float32


def test_a_ranking_gives_all_its_ordered_pairs() -> None:
    assert ordered_pairs(2) == [(0, 1)]
    assert ordered_pairs(3) == [(0, 1), (0, 2), (1, 2)]
