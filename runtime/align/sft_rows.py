"""The rows of supervised fine-tuning: conversations packed, and whole rows of long text in between.

N conversations, or pieces of those that are longer than a row, of all sources; S positions of a row.
"""

import bisect
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainwright.runtime.align.data.fit import FitLedger, Pieces, fit_conversations
from trainwright.runtime.align.data.pack import PackedBatch, packed_batch
from trainwright.runtime.align.data.rows import Conversation, Conversations
from trainwright.runtime.align.packed import PackedMicroBatch, micro_batch, pack_epochs
from trainwright.runtime.data.batches import Batch, MixedText
from trainwright.runtime.data.errors import DataError
from trainwright.spec.plan import SftStage

_FILL = 0  # the token behind a row's last one; nothing attends to it and nothing is asked of it


@dataclass(frozen=True)
class Row:
    """One row as a batch, and the index of the source of each of its documents."""

    batch: PackedBatch
    sources: list[int]


class Talk:
    """The conversations of one split, of all sources, each as pieces that fit a row."""

    def __init__(self, stage: SftStage, folder: Path, split: str) -> None:
        """`folder` is that of the conversations stage. Raises DataError."""
        fitted = [fit_conversations(Conversations(folder, name, split), stage.sequence_length) for name in stage.data]
        self.split = split
        self._pieces: list[Pieces] = [pieces for pieces, _ in fitted]
        self.ledgers: dict[str, FitLedger] = dict(zip(stage.data, (ledger for _, ledger in fitted), strict=True))
        self.lengths_N = np.concatenate([pieces.lengths_N for pieces in self._pieces])
        self._ends = list(itertools.accumulate(map(len, self._pieces)))

    def __len__(self) -> int:
        return len(self.lengths_N)

    def entries(self) -> Iterator[dict[str, object]]:
        """Every conversation that is not used whole, and why."""
        for source, ledger in self.ledgers.items():
            for entry in ledger.entries:
                yield {"source": source, "split": self.split, **entry}

    def source(self, item: int) -> int:
        """Index of the item's source in `stage.data`."""
        return bisect.bisect_right(self._ends, item)

    def __getitem__(self, item: int) -> Conversation:
        source = self.source(item)
        pieces = self._pieces[source]
        return pieces[item - self._ends[source] + len(pieces)]


class SftRows:
    """All rows of the stage, by number: a pure function of the stage and of its data.

    Rows of long text are spread evenly among the others, so that text has its share at any moment.
    """

    def __init__(self, stage: SftStage, talk: Talk, *, epochs: int, tokenized: Path | None) -> None:
        """`tokenized`: the folder of the tokenize stage, where long text is to be mixed in. Raises DataError."""
        if not len(talk):
            raise DataError(f"stage `{stage.name}` has no conversation to train on")
        self._talk, self._length = talk, stage.sequence_length
        self._packed = pack_epochs(talk.lengths_N, stage.sequence_length, seed=stage.seed, epochs=epochs)
        self.talk_tokens = int(talk.lengths_N.sum()) * epochs
        self._text: MixedText | None = None
        self.long_rows = 0
        if tokenized is not None:
            self._text = MixedText(
                stage.long_mixture,
                tokenized,
                length=stage.sequence_length,
                key=f"{stage.seed}/{stage.name}",
                reader=f"stage `{stage.name}`",
            )
            self.long_rows = round(stage.long_share / (1 - stage.long_share) * self.talk_tokens / self._length)
        self.names: tuple[str, ...] = (*stage.data, *(self._text.names if self._text else ()))

    def __len__(self) -> int:
        return len(self._packed) + self.long_rows

    def totals(self) -> dict[str, int | float]:
        """Rows and tokens of all epochs together; `long_share` is that of the tokens, as it came out."""
        long_tokens = self.long_rows * self._length
        tokens = self.talk_tokens + long_tokens
        return {
            "rows": len(self),
            "tokens": tokens,
            "padding_pct": 100.0 * (1.0 - tokens / (len(self) * self._length)),
            "long_rows": self.long_rows,
            "long_share": long_tokens / tokens,
        }

    def micro_batch(self, numbers: Iterable[int]) -> PackedMicroBatch:
        """The rows of these numbers; beyond the last one, empty ones."""
        rows = [self._row(number) if number < len(self) else self._talk_row([]) for number in numbers]
        batch = PackedBatch(
            np.concatenate([row.batch.tokens_BS1 for row in rows]),
            np.concatenate([row.batch.counted_BS1 for row in rows]),
            [starts for row in rows for starts in row.batch.starts],
        )
        return micro_batch(batch, [row.sources for row in rows])

    def _row(self, number: int) -> Row:
        before, upto = (self.long_rows * place // len(self) for place in (number, number + 1))
        if self._text is not None and upto > before:
            return self._text_row(self._text.take(before, upto))
        return self._talk_row(self._packed[number - before])

    def _talk_row(self, items: list[int]) -> Row:
        conversations = [self._talk[item] for item in items]
        content = [(conversation.tokens_L, conversation.trained_L) for conversation in conversations]
        return Row(packed_batch([content], self._length, _FILL), [self._talk.source(item) for item in items])

    def _text_row(self, drawn: Batch) -> Row:
        """A sequence of text, of which every token counts that has one of its own document before it."""
        counted_BS1 = np.ones(drawn.tokens_BS1.shape, dtype=np.bool_)
        counted_BS1[0, drawn.starts[0]] = False
        documents = 1 + int(((drawn.starts[0] > 0) & (drawn.starts[0] < self._length)).sum())
        source = len(self._talk.ledgers) + int(drawn.sources_B[0])
        return Row(PackedBatch(drawn.tokens_BS1, counted_BS1, drawn.starts), [source] * documents)
