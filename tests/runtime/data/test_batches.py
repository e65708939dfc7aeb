"""A phase's sequences are a pure function of seed, phase and place."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from trainwright.runtime.data.batches import Batches
from trainwright.runtime.data.errors import DataError
from trainwright.runtime.data.indexed import write_documents

S = 16
Phase = Callable[..., Any]


def _phase(**changes: Any) -> Any:
    """The fields of a PhaseStage that decide its sequences."""
    values = {
        "name": "short",
        "index": 0,
        "seed": 1,
        "sequence_length": S,
        "sequences_per_step": 8,
        "mixture": {"novels": 0.6, "poems": 0.25, "code": 0.15},
    }
    return SimpleNamespace(**values | changes)


def _numbered(folder: Path, source: str, lengths: list[int], first: int = 1000) -> None:
    """Documents `0 .. length` counted from `first`, so that every token says where it is from."""
    ends = np.cumsum(lengths) + first
    write_documents(
        folder / f"{source}.train",
        [np.arange(end - length, end) for end, length in zip(ends, lengths, strict=True)],
        np.dtype(np.int32),
    )


def _run(batches: Batches, steps: int) -> list[int]:
    """The tokens of the steps in order, without the labels that overlap."""
    parts = [batches.sequences(step, 0, 8).tokens_BS1[:, :-1].ravel() for step in range(steps)]
    return [int(token) for token in np.concatenate(parts)]


def test_a_step_is_the_same_whatever_was_asked_before(corpus: Any) -> None:
    whole = {step: Batches(_phase(), corpus.tokens).sequences(step, 0, 8) for step in (0, 3, 500)}
    batches = Batches(_phase(), corpus.tokens)
    for step, start, stop in ((500, 0, 3), (3, 5, 8), (0, 2, 3), (3, 0, 5), (500, 3, 8), (0, 0, 8)):
        part = batches.sequences(step, start, stop)
        assert (part.tokens_BS1 == whole[step].tokens_BS1[start:stop]).all()
        assert (part.sources_B == whole[step].sources_B[start:stop]).all()
        for ours, theirs in zip(part.starts, whole[step].starts[start:stop], strict=True):
            assert (ours == theirs).all()


def test_shapes_and_starts(corpus: Any) -> None:
    batch = Batches(_phase(), corpus.tokens).sequences(2, 0, 8)
    assert batch.tokens_BS1.shape == (8, S + 1)
    assert batch.tokens_BS1.dtype == np.int64
    for row, starts in enumerate(batch.starts):
        assert starts.tolist() == np.flatnonzero(batch.tokens_BS1[row] == 1).tolist()  # `<s>` is 1


def test_sources_are_indices_into_the_sorted_names(tmp_path: Path) -> None:
    _numbered(tmp_path, "b", [30], first=1000)
    _numbered(tmp_path, "a", [30], first=2000)
    batch = Batches(_phase(mixture={"b": 0.75, "a": 0.25}), tmp_path).sequences(0, 0, 8)
    assert sorted(batch.sources_B.tolist()) == [0, 0, 1, 1, 1, 1, 1, 1]
    assert (batch.tokens_BS1[batch.sources_B == 0] >= 2000).all()


def test_an_epoch_has_every_document_once_and_goes_on_into_the_next(tmp_path: Path) -> None:
    lengths = [5, 40, 7, 16, 1, 33]
    _numbered(tmp_path, "a", lengths)
    total = sum(lengths)
    tokens = _run(Batches(_phase(mixture={"a": 1.0}), tmp_path), steps=8)
    epochs = [tokens[at : at + total] for at in range(0, len(tokens) - total, total)]
    assert len(epochs) > 8
    for epoch in epochs:
        assert sorted(epoch) == list(range(1000, 1000 + total))
    assert len({tuple(epoch) for epoch in epochs}) > 5  # each in an order of its own


def test_the_label_of_the_last_token_is_the_next_sequences_first(tmp_path: Path) -> None:
    _numbered(tmp_path, "a", [50, 3, 21])
    batch = Batches(_phase(mixture={"a": 1.0}), tmp_path).sequences(4, 0, 8)
    assert (batch.tokens_BS1[1:, 0] == batch.tokens_BS1[:-1, -1]).all()


def test_a_source_smaller_than_a_sequence_is_repeated(tmp_path: Path) -> None:
    _numbered(tmp_path, "a", [2, 3])
    batch = Batches(_phase(mixture={"a": 1.0}), tmp_path).sequences(1000, 0, 8)
    assert set(batch.tokens_BS1.ravel().tolist()) == set(range(1000, 1005))
    assert all(6 <= len(starts) <= 8 for starts in batch.starts)


def test_seed_and_phase_choose_the_order(corpus: Any) -> None:
    first = _run(Batches(_phase(), corpus.tokens), steps=2)
    for other in ({"seed": 2}, {"name": "long"}, {"index": 1}):
        assert _run(Batches(_phase(**other), corpus.tokens), steps=2) != first


def test_the_order_is_pinned(tmp_path: Path) -> None:
    """Changing it would change what a resumed run is trained on."""
    _numbered(tmp_path, "a", [1] * 12, first=0)
    order = [5, 1, 6, 10, 0, 3, 2, 7, 9, 11, 8, 4, 2, 3, 5, 10, 9, 11, 4, 7, 1, 0, 6, 8]
    assert _run(Batches(_phase(mixture={"a": 1.0}, sequence_length=4), tmp_path), steps=1)[:24] == order


def test_a_source_without_tokens_is_told(tmp_path: Path) -> None:
    _numbered(tmp_path, "a", [])
    _numbered(tmp_path, "b", [9])
    with pytest.raises(DataError, match="source `a` of phase `short` has no tokens to train on"):
        Batches(_phase(mixture={"a": 0.5, "b": 0.5}), tmp_path)
    Batches(_phase(mixture={"a": 0.0, "b": 1.0}), tmp_path).sequences(0, 0, 8)


def test_a_source_that_was_not_tokenized_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no tokenized source `gone\.train`"):
        Batches(_phase(mixture={"gone": 1.0}), tmp_path)
