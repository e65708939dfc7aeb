"""Lists of ranked answers that fit: a list is never parted, so all its conversations stand in one row.

R rows of a source, N of them that fit, A conversations of all rows: a prompt and one of its answers.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainwright.runtime.align.data.rows import RankedRows


@dataclass(frozen=True)
class FittedLists:
    """Which rows of a source fit, the tokens of all their conversations, how many these are, and why others do not."""

    row_N: NDArray[np.int64]
    tokens_N: NDArray[np.int64]
    answers_N: NDArray[np.int64]
    left_out: list[dict[str, str]]


def fit_lists(rows: RankedRows, around_R: NDArray[np.int64] | int, *, longest: int, row_length: int) -> FittedLists:
    """From the index alone: no token is read.

    `around_R`: the tokens that a conversation has beside prompt and answer; `longest`: of one conversation, with them;
    `row_length`: of all conversations of a list.
    """
    answers_R, sizes_A = rows.sizes()
    sizes_A = sizes_A + np.repeat(np.broadcast_to(around_R, answers_R.shape), answers_R)
    first_R = np.cumsum(answers_R) - answers_R
    none = np.empty(0, np.int64)
    most_R = np.maximum.reduceat(sizes_A, first_R) if len(rows) else none
    tokens_R = np.add.reduceat(sizes_A, first_R) if len(rows) else none
    fits_R = (most_R <= longest) & (tokens_R <= row_length)
    left_out = []
    for row in np.flatnonzero(~fits_R).tolist():
        if most_R[row] > longest:
            why = f"a conversation of {most_R[row]:,} tokens is longer than the longest allowed, {longest:,}"
        else:
            why = f"its {answers_R[row]:,} conversations have {tokens_R[row]:,} tokens, and a row has {row_length:,}"
        left_out.append({"source": rows.source, "split": rows.split, "id": rows.id(row), "why": why})
    return FittedLists(np.flatnonzero(fits_R), tokens_R[fits_R], answers_R[fits_R], left_out)
