"""Lists of ranked answers as the reward model reads them: what fits, in which rows, in which step.

Shape suffixes: N lists, L tokens of a conversation.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainwright.runtime.align.data.lists import fit_lists
from trainwright.runtime.align.data.rows import RankedRows, Tokens
from trainwright.runtime.align.packed import pack_epochs
from trainwright.runtime.align.reward.framing import Framing
from trainwright.runtime.align.reward.losses import ordered_pairs
from trainwright.spec.plan import RewardStage


@dataclass(frozen=True)
class RankedList:
    """Whole conversations with the same prompt, the best answer first."""

    source: int
    domain: str
    conversations: tuple[Tokens, ...]
    margin: float  # between the first and any other


class RankedLists:
    """The lists of some sources that fit. `left_out` tells of the others: source, split, id and why."""

    def __init__(
        self,
        sources: Mapping[str, Sequence[RankedRows]],
        framing: Framing,
        *,
        longest: int,
        row_length: int,
        repeats: Mapping[str, int] | None = None,
    ) -> None:
        """`longest`: tokens of one conversation, all included; `row_length`: of all conversations of a list.

        `repeats`: how often a source's lists stand here, 1 where it is not named.
        """
        self.names = tuple(sources)
        self._framing = framing
        self._rows = [rows for parts in sources.values() for rows in parts]
        self._source = [index for index, parts in enumerate(sources.values()) for _ in parts]
        fitted = [fit_lists(rows, framing.around(rows), longest=longest, row_length=row_length) for rows in self._rows]
        self.left_out = [row for part in fitted for row in part.left_out]
        times = [(repeats or {}).get(self.names[source], 1) for source in self._source]

        def joined(values: Iterable[NDArray[np.int64]]) -> NDArray[np.int64]:
            repeated = [np.repeat(each, count) for each, count in zip(values, times, strict=True)]
            return np.concatenate([np.empty(0, np.int64), *repeated])

        self._part_N = joined(np.full(len(part.row_N), index) for index, part in enumerate(fitted))
        self._row_N = joined(part.row_N for part in fitted)
        self.lengths_N = joined(part.tokens_N for part in fitted)
        self.answers_N = joined(part.answers_N for part in fitted)

    def __len__(self) -> int:
        return len(self._row_N)

    def __getitem__(self, number: int) -> RankedList:
        part = int(self._part_N[number])
        ranked = self._rows[part][int(self._row_N[number])]
        whole = tuple(self._framing.whole(ranked.domain, ranked.prompt, answer) for answer in ranked.answers)
        return RankedList(self._source[part], ranked.domain, whole, ranked.margin)

    def domain(self, number: int) -> str:
        return self._rows[int(self._part_N[number])].domain(int(self._row_N[number]))


class Schedule:
    """Which lists each row of each step holds: all of them once an epoch, packed and ordered by the seed."""

    def __init__(self, lists: RankedLists, stage: RewardStage) -> None:
        self._answers_N = lists.answers_N
        self._per_step = stage.sequences_per_step
        self._rows = pack_epochs(lists.lengths_N, stage.sequence_length, seed=stage.seed, epochs=stage.epochs)

    def __len__(self) -> int:
        """Rows of all epochs."""
        return len(self._rows)

    def rows(self, step: int, start: int, stop: int) -> list[list[int]]:
        """The lists in rows `start` to `stop` of the step; the last step's last rows may be empty."""
        first = step * self._per_step
        own = self._rows[first + start : first + stop]
        return own + [[]] * (stop - start - len(own))

    def counts(self, step: int) -> tuple[int, int]:
        """Pairs and scores of the whole step, on all ranks."""
        answers = [int(self._answers_N[number]) for row in self.rows(step, 0, self._per_step) for number in row]
        return sum(len(ordered_pairs(count)) for count in answers), sum(answers)
