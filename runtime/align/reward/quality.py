"""How good a reward model is on lists that it was not trained on: accuracy, calibration, and where its scores lie.

A pair counts as right if the better answer has the higher score; equal scores count as wrong. Margins play no part.
P: pairs, N: scores.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainwright.runtime.align.reward.losses import ordered_pairs

BINS = 10  # of confidence, from 1/2 to 1


@dataclass(frozen=True)
class Bin:
    """Pairs whose confidence lies in [low, high)."""

    low: float
    high: float
    pairs: int
    confidence: float  # mean
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """Confidence is the model's own odds for the answer it prefers, sigmoid(|difference of scores|).

    `error` is the expected calibration error: the mean over pairs of |accuracy - confidence| of their bin (Guo et al.
    2017, arXiv 1706.04599).
    """

    error: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Quality:
    """`mean` and `std` are of the scores of all answers."""

    lists: int
    pairs: int
    accuracy: float
    margin_mean: float
    mean: float
    std: float
    calibration: Calibration

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def quality(scores: Sequence[NDArray[np.float32]]) -> Quality:
    """Of lists' scores, the best answer's first. There is at least one list."""
    lead_P = np.concatenate([_leads(scores_N) for scores_N in scores])
    all_N = np.concatenate(list(scores)).astype(np.float64)
    return Quality(
        lists=len(scores),
        pairs=len(lead_P),
        accuracy=float((lead_P > 0).mean()),
        margin_mean=float(lead_P.mean()),
        mean=float(all_N.mean()),
        std=float(all_N.std()),
        calibration=_calibration(lead_P),
    )


def by_domain(scores: Sequence[NDArray[np.float32]], domains: Sequence[str]) -> Mapping[str, Quality]:
    """The quality on the lists of each domain."""
    return {
        domain: quality([scores_N for scores_N, own in zip(scores, domains, strict=True) if own == domain])
        for domain in sorted(set(domains))
    }


def _leads(scores_N: NDArray[np.float32]) -> NDArray[np.float64]:
    pairs = ordered_pairs(len(scores_N))
    return np.array([float(scores_N[better]) - float(scores_N[worse]) for better, worse in pairs])


def _calibration(lead_P: NDArray[np.float64]) -> Calibration:
    confidence_P = 1.0 / (1.0 + np.exp(-np.abs(lead_P)))
    right_P = lead_P > 0
    edges = np.arange(BINS, 2 * BINS + 1) / (2 * BINS)
    bin_P = np.clip(np.searchsorted(edges, confidence_P, side="right") - 1, 0, BINS - 1)
    bins = []
    for number in range(BINS):
        inside_P = bin_P == number
        if inside_P.any():
            bins.append(
                Bin(
                    low=float(edges[number]),
                    high=float(edges[number + 1]),
                    pairs=int(inside_P.sum()),
                    confidence=float(confidence_P[inside_P].mean()),
                    accuracy=float(right_P[inside_P].mean()),
                )
            )
    error = sum(part.pairs * abs(part.accuracy - part.confidence) for part in bins) / len(lead_P)
    return Calibration(error=error, bins=tuple(bins))
