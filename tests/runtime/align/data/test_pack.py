"""Packing: whole items, full rows, the same everywhere; and what becomes of conversations that fit no row."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.runtime.align.data.conftest import chat, write_rows

from trainwright.runtime.align.data.fit import NOT_TRAINED, TOO_LONG, fit_conversations
from trainwright.runtime.align.data.pack import pack, packed_batch
from trainwright.runtime.align.data.rows import Conversations


def test_every_item_is_in_one_row_and_rows_are_nearly_full() -> None:
    lengths = np.minimum(np.random.default_rng(0).lognormal(5, 1, 20_000).astype(int) + 1, 2048)
    rows = list(pack(lengths, 2048, seed=7))
    assert sorted(item for row in rows for item in row) == list(range(len(lengths)))
    filled = [int(lengths[row].sum()) for row in rows]
    assert max(filled) <= 2048
    assert sum(filled) / (2048 * len(rows)) > 0.995
    assert list(pack(lengths, 2048, seed=7)) == rows
    assert list(pack(lengths, 2048, seed=8)) != rows
    first, second = np.array_split(np.array([lengths[row[0]] for row in rows]), 2)
    assert abs(first.mean() / second.mean() - 1) < 0.1  # long items are not all at the beginning


def test_packing_few_items_is_known_by_heart() -> None:
    assert sorted(map(sorted, pack([5, 3, 3, 2, 2, 1], 8, seed=1))) == [[0, 1], [2, 3, 4, 5]]
    assert list(pack([], 8, seed=1)) == []
    with pytest.raises(ValueError, match="9 tokens in rows of 8"):
        pack([9], 8, seed=1)


def test_a_batch_counts_what_is_trained_and_no_padding() -> None:
    one = np.array([1, 10, 11, 12]), np.array([False, False, True, True])
    two = np.array([20, 21]), np.array([True, True])
    batch = packed_batch([[one, two], [one]], row_length=7, padding=2)
    assert batch.tokens_BS1.tolist() == [[1, 10, 11, 12, 20, 21, 2, 2], [1, 10, 11, 12, 2, 2, 2, 2]]
    counted = [[0, 0, 1, 1, 0, 1, 0, 0], [0, 0, 1, 1, 0, 0, 0, 0]]  # the first token of an item has nothing before it
    assert batch.counted_BS1.astype(int).tolist() == counted
    assert [starts.tolist() for starts in batch.starts] == [[0, 4, 6], [0, 4]]
    full = packed_batch([[one]], row_length=4, padding=2)
    assert (full.tokens_BS1.tolist(), full.starts[0].tolist()) == ([[1, 10, 11, 12, 2]], [0, 4])


@pytest.fixture
def long_talk(source: Callable[..., Any], run_stage: Callable[..., Any], tmp_path: Path) -> Conversations:
    """A short one; four exchanges after a system turn; one too long for anything; one whose long answer is context."""
    system = {"role": "system", "content": "Be brief."}

    def exchange(number: int, **more: Any) -> list[dict[str, Any]]:
        question, answer = chat(f"Question {number}", "word " * 8 + str(number))["messages"]
        return [question, answer | more]

    giant = chat("Question", "word " * 300)["messages"]
    rows = [
        chat("Hello", "Hi"),
        {"messages": [system, *exchange(1), *exchange(2), *exchange(3), *exchange(4)]},
        {"messages": [system, *giant]},
        {"messages": [*exchange(5), *giant, *exchange(6, weight=0)]},
    ]
    write_rows(tmp_path / "talk.jsonl", rows)
    made = run_stage(source("talk", "talk.jsonl", "chat"), root=tmp_path)
    return Conversations(made.folder, "talk", "train")


def test_long_conversations_are_split_between_exchanges_or_dropped_and_told(long_talk: Conversations) -> None:
    turns = long_talk.turns(1)
    prefix, exchange = turns[0].stop, turns[2].stop - turns[0].stop
    row_length = prefix + 2 * exchange + exchange // 2
    pieces, ledger = fit_conversations(long_talk, row_length)
    assert max(pieces.lengths_N) <= row_length
    assert [len(piece.tokens_L) for piece in pieces] == pieces.lengths_N.tolist()
    assert [piece.id for piece in pieces] == [long_talk.id(row) for row in (0, 1, 1, 3)]
    whole = long_talk[1]
    cut = turns[4].stop
    assert pieces[0].tokens_L.tolist() == long_talk[0].tokens_L.tolist()
    assert pieces[1].tokens_L.tolist() == whole.tokens_L[:cut].tolist()
    assert pieces[2].tokens_L.tolist() == [*whole.tokens_L[:prefix], *whole.tokens_L[cut:]]
    assert pieces[2].trained_L.tolist() == [*[False] * prefix, *whole.trained_L[cut:]]
    assert sum(int(p.trained_L.sum()) for p in pieces[1:3]) == int(whole.trained_L.sum())
    lost = [int(long_talk[row].trained_L.sum()) for row in (2, 3)]
    lost[1] -= int(pieces[3].trained_L.sum())
    assert ledger.plain() == {
        "used": 1,
        "split": 2,
        "pieces": 3,
        "dropped": 1,
        "lost_trained_tokens": sum(lost),
        "reasons": {TOO_LONG: 2, NOT_TRAINED: 1},
    }
    told = [(entry["id"], entry["outcome"], entry["lost"], entry["lost_trained_tokens"]) for entry in ledger.entries]
    assert told == [
        (long_talk.id(1), "split", {}, 0),
        (long_talk.id(2), "dropped", {TOO_LONG: 1}, lost[0]),
        (long_talk.id(3), "split", {TOO_LONG: 1, NOT_TRAINED: 1}, lost[1]),
    ]


def test_all_that_fits_is_used_whole(long_talk: Conversations) -> None:
    pieces, ledger = fit_conversations(long_talk, 10_000)
    assert (ledger.used, ledger.split, ledger.dropped, ledger.entries) == (4, 0, 0, [])
    assert [p.tokens_L.tolist() for p in pieces] == [c.tokens_L.tolist() for c in long_talk]
