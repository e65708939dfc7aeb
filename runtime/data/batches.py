"""The sequences of a mixture: a pure function of a key (for a phase its seed and name) and of the place.

Nothing depends on the layout or on what was asked before, so any rank draws its own slice and any step can be resumed.
B sequences, S tokens to predict in each; K sources in the order of their names.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainwright.runtime.data.errors import DataError
from trainwright.runtime.data.indexed import TokenizedSource, tokens_path
from trainwright.runtime.data.mixture import schedule
from trainwright.runtime.data.order import Epoch, epoch, stretch
from trainwright.spec.plan import PhaseStage


@dataclass
class Batch:
    """Sequences of S + 1 tokens: inputs are the first S, labels the last S.

    `sources_B` is the index of each sequence's source in the sorted names of the mixture. `starts[b]`: the places 0..S
    of sequence b where a document begins. A sequence may begin inside a document that an earlier one began.
    """

    tokens_BS1: NDArray[np.int64]
    sources_B: NDArray[np.int64]
    starts: Sequence[NDArray[np.int64]]


class MixedText:
    """The endless sequences of a mixture, from the folder of a tokenize stage.

    A source's documents follow each other in an order of the epoch's own and are cut every S tokens; the cut that an
    epoch leaves over goes on with the next epoch.
    """

    def __init__(self, mixture: Mapping[str, float], folder: Path, *, length: int, key: str, reader: str) -> None:
        """`length`: S. The orders belong to `key`; `reader` is who trains on it, to be told in an error.

        Raises DataError if a source of the mixture has no tokens to train on.
        """
        self.names = tuple(sorted(mixture))
        weights = [mixture[name] for name in self.names]
        self._length = length
        self._schedule = schedule(weights)
        self._sources = [
            _Stream(TokenizedSource(tokens_path(folder, name, "train")), name, key, reader) if weight > 0 else None
            for name, weight in zip(self.names, weights, strict=True)
        ]

    def take(self, start: int, stop: int) -> Batch:
        """Sequences `start` to `stop` of all."""
        sources_B, numbers_B = self._schedule.take(start, stop)
        length = self._length
        drawn = [
            self._source(source).read(number * length, length + 1)
            for source, number in zip(sources_B.tolist(), numbers_B.tolist(), strict=True)
        ]
        tokens_BS1 = np.empty((stop - start, length + 1), dtype=np.int64)
        for row, (tokens, _) in enumerate(drawn):
            tokens_BS1[row] = tokens
        return Batch(tokens_BS1, sources_B, [starts for _, starts in drawn])

    def _source(self, index: int) -> "_Stream":
        stream = self._sources[index]
        assert stream is not None  # the schedule never draws a weight of zero
        return stream


class Batches:
    """The sequences of a phase, step by step."""

    def __init__(self, phase: PhaseStage, folder: Path) -> None:
        """Raises DataError if a source of the mixture has no tokens to train on."""
        self._per_step = phase.sequences_per_step
        self._text = MixedText(
            phase.mixture,
            folder,
            length=phase.sequence_length,
            key=f"{phase.seed}/{phase.index}/{phase.name}",
            reader=f"phase `{phase.name}`",
        )
        self.names = self._text.names

    def sequences(self, step: int, start: int, stop: int) -> Batch:
        """Sequences `start` to `stop` of the step, counted within the step (0 .. `sequences_per_step`)."""
        before = step * self._per_step
        return self._text.take(before + start, before + stop)


class _Stream:
    """A source's epochs one after the other, as one endless run of tokens."""

    def __init__(self, source: TokenizedSource, name: str, key: str, reader: str) -> None:
        if source.token_count == 0:
            raise DataError(f"source `{name}` of {reader} has no tokens to train on")
        self._source = source
        self._key = f"{key}/{name}"
        self._epochs: OrderedDict[int, Epoch] = OrderedDict()  # those in use: a step meets two at most, or tiny ones

    def read(self, start: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Tokens `start` to `start + count` of the run, and where in them documents begin."""
        tokens, starts = [], []
        done = 0
        while done < count:
            number, offset = divmod(start + done, self._source.token_count)
            part, begins = stretch(self._source, self._epoch(number), offset, count - done)
            tokens.append(part)
            starts.append(begins + done)
            done += len(part)
        return np.concatenate(tokens), np.concatenate(starts)

    def _epoch(self, number: int) -> Epoch:
        if number not in self._epochs:
            self._epochs[number] = epoch(self._source, f"{self._key}/{number}")
        self._epochs.move_to_end(number)
        while len(self._epochs) > 2:
            self._epochs.popitem(last=False)
        return self._epochs[number]
