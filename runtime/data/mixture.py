"""Which source each sequence of a phase comes from, so that at any moment every source has its share.

The order repeats after a period P in which source k has c_k places, c_k / P being its weight. Each place goes to the
sequence that is due first, out of those whose turn has come: sequence j of source k has its turn at place
floor(j P / c_k) and is due before place ceil((j + 1) P / c_k). This is the Pfair schedule of one processor (Baruah et
al. 1996, "Proportionate progress"): after n sequences source k has had n c_k / P of them, give or take less than one.
"""

import heapq
import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

_LONGEST_PERIOD = 1 << 16


@dataclass(frozen=True)
class Schedule:
    """The endless order of sources. `source_P` and `rank_P`: per place of the period the source, and how many earlier
    places of the period are the same source's."""

    source_P: NDArray[np.int64]
    rank_P: NDArray[np.int64]
    counts_K: NDArray[np.int64]

    def take(self, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For sequences `start` to `stop` of a phase: the source, and the sequence's number within that source."""
        turns, places = np.divmod(np.arange(start, stop, dtype=np.int64), len(self.source_P))
        sources = self.source_P[places]
        return sources, turns * self.counts_K[sources] + self.rank_P[places]


def schedule(weights: list[float]) -> Schedule:
    """The order for these weights, which need not sum to one; a weight of zero is never drawn.

    Weights that are no fractions of a common denominator up to 2^16 are rounded to 2^-16, a positive one not to zero.
    """
    counts = _counts(weights)
    period = sum(counts)
    waiting = sorted(
        ((j * period) // count, -(-(j + 1) * period // count), k)
        for k, count in enumerate(counts)
        for j in range(count)
    )
    waiting.reverse()
    due: list[tuple[int, int]] = []
    source_P = np.empty(period, dtype=np.int64)
    rank_P = np.empty(period, dtype=np.int64)
    placed = [0] * len(counts)
    for place in range(period):
        while waiting and waiting[-1][0] <= place:
            _, deadline, k = waiting.pop()
            heapq.heappush(due, (deadline, k))
        _, k = heapq.heappop(due)
        source_P[place], rank_P[place] = k, placed[k]
        placed[k] += 1
    return Schedule(source_P, rank_P, np.array(counts, dtype=np.int64))


def _counts(weights: list[float]) -> list[int]:
    """Places of each source in a period, as few as give the weights."""
    total = math.fsum(weights)
    shares = [weight / total for weight in weights]
    exact = [Fraction(share).limit_denominator(_LONGEST_PERIOD) for share in shares]
    period = math.lcm(*(share.denominator for share in exact))
    same = all(abs(float(a) - b) < 1e-12 for a, b in zip(exact, shares, strict=True))
    if same and sum(exact) == 1 and period <= _LONGEST_PERIOD:
        return [int(share * period) for share in exact]
    counts = [max(math.floor(share * _LONGEST_PERIOD), share > 0) for share in shares]
    while sum(counts) != _LONGEST_PERIOD:
        step = 1 if sum(counts) < _LONGEST_PERIOD else -1
        errors = [step * (share * _LONGEST_PERIOD - count) for share, count in zip(shares, counts, strict=True)]
        best = max((k for k in range(len(counts)) if counts[k] + step > 0 and shares[k] > 0), key=lambda k: errors[k])
        counts[best] += step
    return counts
