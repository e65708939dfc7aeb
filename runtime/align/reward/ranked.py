"""Lists of ranked answers as the reward model reads them: what fits, in which rows, in which step.

A list is never parted: all its answers stand in one row. Shape suffixes: N lists, L tokens of a conversation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
        self._places: list[tuple[int, int]] = []  # of each list that fits: which rows, and where in them
        self.left_out: list[dict[str, str]] = []
        lengths, answers = [], []
        for index, rows in enumerate(self._rows):
            times = (repeats or {}).get(self.names[self._source[index]], 1)
            for row in range(len(rows)):
                sizes = [len(tokens) for tokens in self._read(index, row).conversations]
                why = _obstacle(sizes, longest, row_length)
                if why is not None:
                    name = self.names[self._source[index]]
                    self.left_out.append({"source": name, "split": rows.split, "id": rows.id(row), "why": why})
                    continue
                self._places += [(index, row)] * times
                lengths += [sum(sizes)] * times
                answers += [len(sizes)] * times
        self.lengths_N: NDArray[np.int64] = np.array(lengths, dtype=np.int64)
        self.answers_N: NDArray[np.int64] = np.array(answers, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: int) -> RankedList:
        return self._read(*self._places[number])

    def _read(self, index: int, row: int) -> RankedList:
        ranked = self._rows[index][row]
        whole = tuple(self._framing.whole(ranked.domain, ranked.prompt, answer) for answer in ranked.answers)
        return RankedList(self._source[index], ranked.domain, whole, ranked.margin)


def _obstacle(sizes: Sequence[int], longest: int, row_length: int) -> str | None:
    """Why conversations of these lengths cannot be trained on; None if they can."""
    if max(sizes) > longest:
        return f"a conversation of {max(sizes):,} tokens is longer than the longest allowed, {longest:,}"
    if sum(sizes) > row_length:
        return f"its {len(sizes):,} conversations have {sum(sizes):,} tokens, and a row has {row_length:,}"
    return None


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
