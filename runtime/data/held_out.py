"""Held-out documents as windows for evaluation: every token of every document but its first is predicted exactly once.

B windows, S tokens to predict at most in each.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainwright.runtime.data.errors import DataError
from trainwright.runtime.data.indexed import TokenizedSource, tokens_path


@dataclass(frozen=True)
class Windows:
    """Windows of up to S + 1 tokens, padded to the longest of the batch; every window lies in one document.

    `mask_BS[b, s]` says whether `tokens_BS1[b, s + 1]` is to be predicted, or else is padding.
    """

    tokens_BS1: NDArray[np.int64]
    mask_BS: NDArray[np.bool_]


def held_out_windows(
    folder: Path, source: str, sequence_length: int, batch: int, padding: int = 0
) -> Iterator[Windows]:
    """All held-out documents of a source, cut every `sequence_length` tokens, in batches of `batch` windows.

    A document's first token (`<s>`) is given, and a later window is given the token before it and no other context.
    Windows come by length, the longest first, so that little is padded; the last batch may be smaller. `folder` is that
    of a tokenize stage. Raises DataError if nothing is held out.
    """
    held_out = TokenizedSource(tokens_path(folder, source, "held_out"))
    predicted_D = np.maximum(held_out.lengths_D - 1, 0)
    windows_D = -(-predicted_D // sequence_length)
    document_W = np.repeat(np.arange(len(held_out)), windows_D)
    begin_W = (np.arange(len(document_W)) - np.repeat(np.cumsum(windows_D) - windows_D, windows_D)) * sequence_length
    length_W = np.minimum(predicted_D[document_W] - begin_W, sequence_length)
    if not len(document_W):
        raise DataError(f"source `{source}` has no held-out text")
    order_W = np.argsort(-length_W, kind="stable")
    for at in range(0, len(order_W), batch):
        chosen_B = order_W[at : at + batch]
        longest = int(length_W[chosen_B[0]])
        tokens_BS1 = np.full((len(chosen_B), longest + 1), padding, dtype=np.int64)
        for row, window in enumerate(chosen_B):
            begin, length = int(begin_W[window]), int(length_W[window])
            tokens_BS1[row, : length + 1] = held_out.tokens(int(document_W[window]), begin, begin + length + 1)
        yield Windows(tokens_BS1, np.arange(longest) < length_W[chosen_B, None])


def held_out_bytes(folder: Path, source: str) -> int:
    """How many bytes of UTF-8 text the source's held-out documents are. `folder` is that of a tokenize stage."""
    counts = json.loads((folder / "counts.json").read_bytes())
    return int(counts[source]["held_out"]["bytes"])
