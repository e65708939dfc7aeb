"""The rows of direct preference optimisation: lists of ranked answers, each with all its answers in one row.

N lists, D documents (a document is a prompt and one answer), of a micro-batch or of all lists; P pairs.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainwright.runtime import host
from trainwright.runtime.align.data.lists import fit_lists
from trainwright.runtime.align.data.pack import Item, packed_batch
from trainwright.runtime.align.data.rows import Ranked, RankedRows
from trainwright.runtime.align.packed import PackedMicroBatch, micro_batch, pack_epochs
from trainwright.runtime.align.reward.losses import ordered_pairs
from trainwright.spec.plan import DpoStage

_FILL = 0  # the token behind a row's last one


class Lists:
    """The ranked lists of one split, of all sources, that fit a row; `left_out` tells of the others."""

    def __init__(self, stage: DpoStage, folder: Path, split: str, *, begin: int) -> None:
        """`folder` is that of the conversations stage, `begin` the token `<s>`. Raises DataError."""
        self._rows = [RankedRows(folder, name, split) for name in stage.data]
        self._begin = np.array([begin], dtype=np.int32)
        fitted = [fit_lists(rows, 1, longest=stage.longest, row_length=stage.sequence_length) for rows in self._rows]
        self.left_out = [row for part in fitted for row in part.left_out]
        self._source_N = np.repeat(np.arange(len(fitted)), [len(part.row_N) for part in fitted])
        self._row_N = np.concatenate([part.row_N for part in fitted])
        self.lengths_N: NDArray[np.int64] = np.concatenate([part.tokens_N for part in fitted])
        self.answers_N: NDArray[np.int64] = np.concatenate([part.answers_N for part in fitted])
        self.first_N: NDArray[np.int64] = np.cumsum(self.answers_N) - self.answers_N  # its first document, of all

    def __len__(self) -> int:
        return len(self._row_N)

    @property
    def documents(self) -> int:
        return int(self.answers_N.sum())

    def totals(self) -> dict[str, int]:
        pairs = sum(len(ordered_pairs(count)) for count in self.answers_N.tolist())
        return {"lists": len(self), "pairs": pairs, "tokens": int(self.lengths_N.sum()), "left_out": len(self.left_out)}

    def source(self, number: int) -> int:
        """Index of the list's source in `stage.data`."""
        return int(self._source_N[number])

    def items(self, number: int) -> list[Item]:
        """The list's documents, the best answer first; only answers are trained."""
        ranked: Ranked = self._rows[self.source(number)][int(self._row_N[number])]
        prompt = np.concatenate([self._begin, ranked.prompt])
        return [
            (np.concatenate([prompt, answer]), np.arange(len(prompt) + len(answer)) >= len(prompt))
            for answer in ranked.answers
        ]


@dataclass(frozen=True)
class DpoBatch(PackedMicroBatch):
    """Packed rows whose `owner_D` is the document's number among all of the split.

    Pairs are places among the D documents here; `source_D` is -1 for padding.
    """

    better_P: Tensor
    worse_P: Tensor
    source_D: Tensor


class DpoRows:
    """All rows of the stage, by number: a pure function of the stage and of its lists."""

    def __init__(self, stage: DpoStage, lists: Lists, *, epochs: int) -> None:
        self._lists, self._length = lists, stage.sequence_length
        self._packed = pack_epochs(lists.lengths_N, stage.sequence_length, seed=stage.seed, epochs=epochs)

    def __len__(self) -> int:
        return len(self._packed)

    def micro_batch(self, numbers: Iterable[int]) -> DpoBatch:
        """The rows of these numbers; beyond the last one, empty ones."""
        lists = self._lists
        rows = [self._packed[number] if number < len(self) else [] for number in numbers]
        items = [[item for number in row for item in lists.items(number)] for row in rows]
        counts = [[(number, int(lists.answers_N[number])) for number in row] for row in rows]
        owners = [
            [int(lists.first_N[number]) + place for number, count in row for place in range(count)] for row in counts
        ]
        packed = micro_batch(packed_batch(items, self._length, _FILL), owners)
        # The documents of a micro-batch are those of its rows in order, and what fills up a row that is not full.
        pairs: list[tuple[int, int]] = []
        sources = np.full(len(packed.owner_D), -1)
        at = 0
        for row in counts:
            for number, count in row:
                pairs += [(at + better, at + worse) for better, worse in ordered_pairs(count)]
                sources[at : at + count] = lists.source(number)
                at += count
            at += int(sum(int(lists.lengths_N[number]) for number, _ in row) < self._length)
        device = host.device()
        better_P, worse_P = torch.tensor(pairs, dtype=torch.int64, device=device).reshape(-1, 2).unbind(1)
        return DpoBatch(
            **vars(packed),
            better_P=better_P,
            worse_P=worse_P,
            source_D=torch.from_numpy(sources).to(device),
        )
