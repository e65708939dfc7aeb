"""Windows over held-out documents: every token counted once."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainwright.runtime.data.errors import DataError
from trainwright.runtime.data.held_out import held_out_bytes, held_out_windows
from trainwright.runtime.data.indexed import TokenizedSource, write_documents


def test_a_small_case_in_full(tmp_path: Path) -> None:
    documents = [np.arange(10, 17), np.arange(20, 22), np.arange(30, 34)]
    write_documents(tmp_path / "a.held_out", documents, np.dtype(np.int32))
    first, second = held_out_windows(tmp_path, "a", sequence_length=3, batch=3)
    assert first.tokens_BS1.tolist() == [[10, 11, 12, 13], [13, 14, 15, 16], [30, 31, 32, 33]]
    assert first.mask_BS.all()
    assert second.tokens_BS1.tolist() == [[20, 21]]
    assert second.mask_BS.tolist() == [[True]]


def test_padding_is_masked(tmp_path: Path) -> None:
    write_documents(tmp_path / "a.held_out", [np.arange(10, 14), np.arange(20, 22)], np.dtype(np.int32))
    (windows,) = held_out_windows(tmp_path, "a", sequence_length=8, batch=4, padding=2)
    assert windows.tokens_BS1.tolist() == [[10, 11, 12, 13], [20, 21, 2, 2]]
    assert windows.mask_BS.tolist() == [[True, True, True], [True, False, False]]


@pytest.mark.parametrize(("length", "batch"), [(1, 5), (7, 3), (128, 4), (100_000, 64)])
def test_every_token_but_the_first_of_a_document_is_predicted_once(length: int, batch: int, corpus: Any) -> None:
    source = TokenizedSource(corpus.tokens / "code.held_out")
    wanted = np.concatenate([source.tokens(document)[1:] for document in range(len(source))])
    windows = list(held_out_windows(corpus.tokens, "code", length, batch))
    found = np.concatenate([window.tokens_BS1[:, 1:][window.mask_BS] for window in windows])
    assert np.array_equal(np.sort(found), np.sort(wanted))
    assert all(window.tokens_BS1.shape[1] <= length + 1 and len(window.tokens_BS1) <= batch for window in windows)


def test_the_bytes_are_those_of_the_text(corpus: Any) -> None:
    assert held_out_bytes(corpus.tokens, "poems") == corpus.counts["poems"]["held_out"]["bytes"] > 0


def test_nothing_held_out_is_told(tmp_path: Path) -> None:
    write_documents(tmp_path / "a.held_out", [], np.dtype(np.int32))
    with pytest.raises(DataError, match="source `a` has no held-out text"):
        next(held_out_windows(tmp_path, "a", 8, 4))
