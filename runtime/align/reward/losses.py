"""What a reward model is trained on: a focal ranking loss between answers, and a barrier that holds scores in bounds.

InternLM2 (arXiv 2403.17297, section 4.2.1). Both in fp32 whatever the model computes in: in bf16, ln 2 is 0.6914.
P: pairs, N: scores.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

# The barrier's slope as a line is 1 / (bound * EDGE): 200 at a bound of 5, 4.0 with InternLM2's weight
# of 0.02. The focal ranking loss pushes a difference by at most (gamma ln 2 + 1) / 2 = 1.19, and has half as many pairs
# as there are scores: 2.4 in the same unit. So with InternLM2's figures a score beyond the bound comes back whatever
# its pairs say.
EDGE = 1e-3  # of the bound


def ranking_loss(chosen_P: Tensor, rejected_P: Tensor, margin_P: Tensor | float, gamma: float) -> Tensor:
    """loss_P = -(1 - 2 max(0, p - 1/2))^gamma ln p, in nats, where p = sigmoid(chosen - rejected - margin).

    A margin is by how much the better answer is to lead: p is the odds that it leads by that much. Where p > 1/2 the
    base is 2 (1 - p), which is taken through its logarithm, so that no p rounds to 0 or 1. At p = 1/2 itself the
    gradient is that of the side below, which nothing weighs down. gamma 0 is the plain loss of Bradley and Terry.
    """
    lead_P = _precise(chosen_P) - _precise(rejected_P) - margin_P
    beyond_P = math.log(2.0) + functional.logsigmoid(-lead_P)
    log_weight_P = gamma * torch.where(lead_P > 0.0, beyond_P, torch.zeros_like(beyond_P))
    return -log_weight_P.exp() * functional.logsigmoid(lead_P)


def barrier(scores_N: Tensor, bound: float) -> Tensor:
    """penalty_N = -(ln(bound + x) + ln(bound - x)), which goes on as a straight line past bound (1 - EDGE).

    Value and slope are continuous. A line and no clamp, whose gradient is zero: a score that strayed past the bound
    would never come back.
    """
    scores_N = _precise(scores_N)
    edge = bound * (1.0 - EDGE)
    slope = 1.0 / (bound - edge) - 1.0 / (bound + edge)
    inside_N = scores_N.clamp(-edge, edge)
    line_N = slope * (scores_N.abs() - edge).relu()
    return line_N - torch.log(bound + inside_N) - torch.log(bound - inside_N)


def is_saturated(scores_N: Tensor, bound: float) -> Tensor:
    """Which scores lie where the barrier is a line."""
    return scores_N.abs() > bound * (1.0 - EDGE)


def ordered_pairs(answers: int) -> list[tuple[int, int]]:
    """The (better, worse) places of a list that is ranked best first: all of them, answers (answers - 1) / 2."""
    return [(better, worse) for better in range(answers) for worse in range(better + 1, answers)]


def _precise(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
