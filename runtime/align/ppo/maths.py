"""The formulas of PPO over answers of different lengths.

InternLM2 (arXiv 2403.17297, section 4.2.3) with generalised advantage estimation (Schulman et al. 2016, arXiv
1506.02438) and the clipped objective (Schulman et al. 2017, arXiv 1707.06347). All that is known before a gradient is
taken is computed in float64 with NumPy, from figures that every rank holds, so every layout has the same; the losses
are per token in fp32 with torch, and are summed and divided by the caller.

N: tokens of all answers, one answer after the other; R: answers; lengths_R sums to N.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def token_rewards(log_probs_N: Floats, reference_N: Floats, scores_R: Floats, lengths_R: Ints, kl: float) -> Floats:
    """At every token -kl (log pi_actor - log pi_reference), and at an answer's last token its score besides."""
    rewards_N = -kl * (log_probs_N - reference_N)
    rewards_N[np.cumsum(lengths_R) - 1] += scores_R
    return rewards_N


def advantages(
    rewards_N: Floats, values_N: Floats, lengths_R: Ints, *, discount: float, gae_lambda: float
) -> tuple[Floats, Floats]:
    """Advantages A_N and the returns A_N + values_N that the critic learns.

    delta_t = r_t + discount V_{t+1} - V_t;  A_t = delta_t + discount gae_lambda A_{t+1}. V_t is the critic's value
    before token t is drawn. Nothing follows an answer's last token, not even one that was cut at the longest length:
    such an answer ends there, with the score that it was given.
    """
    advantages_N = np.zeros_like(rewards_N)
    last_R = np.cumsum(lengths_R) - 1
    following_R = np.zeros(len(lengths_R))  # A_{t+1}
    value_R = np.zeros(len(lengths_R))  # V_{t+1}
    for back in range(int(lengths_R.max())):
        rows = np.flatnonzero(lengths_R > back)
        place = last_R[rows] - back
        delta = rewards_N[place] + discount * value_R[rows] - values_N[place]
        following_R[rows] = delta + discount * gae_lambda * following_R[rows]
        value_R[rows] = values_N[place]
        advantages_N[place] = following_R[rows]
    return advantages_N, advantages_N + values_N


def normalised(advantages_N: Floats) -> Floats:
    """The advantages with mean 0 and deviation 1 over all tokens of the iteration."""
    flat_N: Floats = (advantages_N - advantages_N.mean()) / (advantages_N.std() + 1e-8)
    return flat_N


def explained_variance(values_N: Floats, returns_N: Floats) -> float:
    """1 - Var(returns - values) / Var(returns): 1 for a perfect critic, 0 for a constant one; 0 if nothing varies."""
    varies = float(returns_N.var())
    return 1.0 - float((returns_N - values_N).var()) / varies if varies > 0 else 0.0


@dataclass(frozen=True)
class PolicyTerms:
    """Per token: the loss, and without gradients what is told of it."""

    loss: Tensor
    clipped: Tensor  # 1 where the ratio of policies is beyond 1 - clip .. 1 + clip
    kl: Tensor  # r - 1 - log r with r = pi / pi_old: never negative, its mean over pi_old's draws is KL(pi_old || pi)


def policy_terms(log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, clip: float) -> PolicyTerms:
    """max(-A r, -A clip(r, 1 - clip, 1 + clip)) for each token, with r = exp(log_probs - old_log_probs).

    The caller sums over the tokens of a mini-batch and divides by their number: a long answer weighs more than a
    short one, and how the answers are packed or spread over ranks is of no consequence.
    """
    change = log_probs - old_log_probs
    ratio = change.exp()
    bounded = ratio.clamp(1.0 - clip, 1.0 + clip)
    loss = torch.maximum(-advantages * ratio, -advantages * bounded)
    with torch.no_grad():
        clipped = ((ratio - 1.0).abs() > clip).to(loss.dtype)
        kl = torch.expm1(change) - change
    return PolicyTerms(loss, clipped, kl)


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip: float | None) -> Tensor:
    """(V - return)^2 / 2 for each token; with `clip` the larger one of that and of V kept within `clip` of old V."""
    squared = (values - returns).square()
    if clip is not None:
        near = old_values + (values - old_values).clamp(-clip, clip)
        squared = torch.maximum(squared, (near - returns).square())
    return 0.5 * squared
