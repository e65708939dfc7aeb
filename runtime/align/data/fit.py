"""Conversations that are longer than a row: split between exchanges where that can be, else dropped, and told.

An exchange is a user's turn and all that follows it up to the next one, so nothing is answered without its question.
Every piece of a split conversation begins with `<s>` and the system turns that the whole began with. T turns.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field
from typing import overload

import numpy as np
from numpy.typing import NDArray

from trainwright.runtime.align.data.rows import Conversation, Conversations, Turn

TOO_LONG = "an exchange is longer than a row"
NOT_TRAINED = "nothing in it is trained"


@dataclass
class FitLedger:
    """What became of the conversations of a source: `used` whole, `split`, or `dropped`; these are all of them.

    `pieces` are those of split ones. `entries`: every conversation that was split or dropped, with the exchanges that
    were lost and why; a split one has none to tell if all of its trained tokens are in its pieces.
    """

    used: int = 0
    split: int = 0
    pieces: int = 0
    dropped: int = 0
    lost_trained_tokens: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    entries: list[dict[str, object]] = field(default_factory=list)

    def plain(self) -> dict[str, object]:
        """The counts as plain data, without the entries."""
        counts = ("used", "split", "pieces", "dropped", "lost_trained_tokens")
        return {name: getattr(self, name) for name in counts} | {"reasons": dict(sorted(self.reasons.items()))}


@dataclass(frozen=True)
class _Part:
    """A piece: turns `start` to `stop` of a conversation, in tokens, after its first `prefix` tokens."""

    row: int
    prefix: int
    start: int
    stop: int


class Pieces(Sequence[Conversation]):
    """Conversations that each fit a row, in the order of their rows. `lengths_N`: tokens of each."""

    def __init__(self, conversations: Conversations, parts_N4: NDArray[np.int32]) -> None:
        """`parts_N4`: the fields of a `_Part` each."""
        self._conversations, self._parts_N4 = conversations, parts_N4
        _, prefix_N, start_N, stop_N = parts_N4.T
        self.lengths_N: NDArray[np.int32] = prefix_N + stop_N - start_N

    def __len__(self) -> int:
        return len(self._parts_N4)

    @overload
    def __getitem__(self, piece: int) -> Conversation: ...
    @overload
    def __getitem__(self, piece: slice) -> list[Conversation]: ...
    def __getitem__(self, piece: int | slice) -> Conversation | list[Conversation]:
        if isinstance(piece, slice):
            return [self[number] for number in range(*piece.indices(len(self)))]
        row, prefix, start, stop = self._parts_N4[piece].tolist()
        whole = self._conversations[row]
        if prefix == start:
            return Conversation(whole.id, whole.domain, whole.tokens_L[:stop], whole.trained_L[:stop])
        tokens = np.concatenate([whole.tokens_L[:prefix], whole.tokens_L[start:stop]])
        trained = np.concatenate([np.zeros(prefix, dtype=np.bool_), whole.trained_L[start:stop]])
        return Conversation(whole.id, whole.domain, tokens, trained)


def fit_conversations(conversations: Conversations, row_length: int) -> tuple[Pieces, FitLedger]:
    """The conversations as pieces of at most `row_length` tokens, and what became of each that did not fit whole."""
    lengths_R = conversations.lengths_R
    fits_R = lengths_R <= row_length
    ledger = FitLedger(used=int(fits_R.sum()))
    row_N = np.flatnonzero(fits_R)
    whole_N4 = np.zeros((len(row_N), 4), dtype=np.int32)
    whole_N4[:, 0], whole_N4[:, 3] = row_N, lengths_R[row_N]
    split = [
        part for row in np.flatnonzero(~fits_R).tolist() for part in _split(conversations, row, row_length, ledger)
    ]
    split_N4 = np.array([astuple(part) for part in split], dtype=np.int32).reshape(-1, 4)
    parts_N4 = np.concatenate([whole_N4, split_N4])
    # In the order of the rows; a stable sort keeps the pieces of one in theirs.
    return Pieces(conversations, parts_N4[np.argsort(parts_N4[:, 0], kind="stable")]), ledger


def _split(conversations: Conversations, row: int, row_length: int, ledger: FitLedger) -> list[_Part]:
    turns = conversations.turns(row)
    leading = 0
    while leading < len(turns) and turns[leading].role == "system":
        leading += 1
    prefix = turns[leading - 1].stop if leading else 1
    trained_L = conversations[row].trained_L
    parts: list[_Part] = []
    lost: Counter[str] = Counter()
    lost_tokens = 0
    for start, stop in _exchanges(turns[leading:]):
        if prefix + stop - start > row_length:
            lost[TOO_LONG] += 1
            lost_tokens += int(trained_L[start:stop].sum())
        elif parts and parts[-1].stop == start and prefix + stop - parts[-1].start <= row_length:
            parts[-1] = _Part(row, prefix, parts[-1].start, stop)
        else:
            parts.append(_Part(row, prefix, start, stop))
    worth = [part for part in parts if trained_L[part.start : part.stop].any()]
    lost[NOT_TRAINED] += len(parts) - len(worth)
    reasons = {reason: count for reason, count in lost.items() if count}
    ledger.split += bool(worth)
    ledger.dropped += not worth
    ledger.pieces += len(worth)
    ledger.lost_trained_tokens += lost_tokens
    ledger.reasons.update(reasons)
    ledger.entries.append(
        {
            "id": conversations.id(row),
            "outcome": "split" if worth else "dropped",
            "tokens": int(conversations.lengths_R[row]),
            "pieces": len(worth),
            "lost": reasons,
            "lost_trained_tokens": lost_tokens,
        }
    )
    return worth


def _exchanges(turns: Sequence[Turn]) -> list[tuple[int, int]]:
    """(start, stop) in tokens of each exchange; what stands before the first user's turn is one too."""
    cuts = [turn.start for index, turn in enumerate(turns) if index == 0 or turn.role == "user"]
    return list(zip(cuts, [*cuts[1:], turns[-1].stop], strict=True)) if turns else []
