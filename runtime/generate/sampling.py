"""How the next token of every row is drawn, all rows at once.

Shape suffixes: B rows, V vocabulary, M tokens that a row may be given, E entries that equal the drawn ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn. Temperature 0 takes the likeliest one and looks at nothing else."""

    max_tokens: int
    temperature: float
    top_p: float


def uniforms(seeds: Sequence[int], count: int) -> NDArray[np.float64]:
    """uniform_BM: the first `count` numbers in [0, 1) of each row, which its seed alone decides.

    From a counter-based generator (Philox 4x64; Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): the
    key is the seed, the counter the token's number.
    """
    bits_BM = np.empty((len(seeds), count), dtype=np.uint64)
    for row, seed in enumerate(seeds):
        bits_BM[row] = np.random.Philox(key=seed).random_raw(count)
    return (bits_BM >> np.uint64(11)).astype(np.float64) * 2.0**-53


def draw(logits_BV: Tensor, sampling: Sampling, uniform_B: Tensor) -> Tensor:
    """token_B of each row's nucleus: the smallest set of the likeliest tokens whose probabilities reach `top_p`.

    Tokens of equal probability rank by their number. `uniform_B` (float64) is the place in the nucleus, likeliest
    tokens first, so that a row's token depends on its own logits and number alone. Holtzman et al. 2019 (1904.09751).
    """
    if sampling.temperature == 0:
        return logits_BV.argmax(-1)
    probability_BV = (logits_BV.float() / sampling.temperature).softmax(-1)
    # Only the values are sorted, which is many times as fast as sorting with indices; the token is looked up after.
    sorted_BV = _ascending(probability_BV)
    cumulative_BV = sorted_BV.cumsum(-1, dtype=torch.float64)
    total_B1 = cumulative_BV[:, -1:]
    # Likelier than a place is what the total has above it, so the nucleus begins where less than `top_p` is above.
    first_B1 = torch.searchsorted(cumulative_BV, total_B1 - sampling.top_p, right=True)
    first_B1.clamp_(max=logits_BV.shape[1] - 1)
    nucleus_B1 = total_B1 - cumulative_BV.gather(-1, first_B1) + sorted_BV.gather(-1, first_B1)
    place_B1 = torch.searchsorted(cumulative_BV, total_B1 - uniform_B[:, None] * nucleus_B1)
    place_B1 = torch.maximum(place_B1, first_B1)
    value_B1 = sorted_BV.gather(-1, place_B1)
    likelier_equals_B = (torch.searchsorted(sorted_BV, value_B1, right=True) - 1 - place_B1).squeeze(-1)
    row_E, token_E = (probability_BV == value_B1).nonzero(as_tuple=True)
    first_of_row_B = torch.searchsorted(row_E, torch.arange(len(logits_BV), device=row_E.device))
    return token_E[first_of_row_B + likelier_equals_B]


def log_probs(logits_BV: Tensor, token_B: Tensor) -> Tensor:
    """log_prob_B in fp32: ln softmax(logits) of the tokens."""
    return logits_BV.float().log_softmax(-1).gather(-1, token_B[:, None]).squeeze(-1)


def _ascending(values_BV: Tensor) -> Tensor:
    """Each row sorted."""
    if values_BV.device.type == "cpu":  # NumPy's sort is vectorised, torch's on a CPU is not
        return torch.from_numpy(np.sort(values_BV.numpy(), axis=-1))
    return values_BV.sort(-1).values
