"""What a micro-batch hides: a label that begins a document, and other documents from attention."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from megatron.core import parallel_state

from trainwright.runtime.train.language import micro_batch


def batch(*starts: list[int]) -> Any:
    tokens = np.arange(len(starts) * 9, dtype=np.int64).reshape(len(starts), 9)
    return micro_batch(
        SimpleNamespace(
            tokens_BS1=tokens,
            sources_B=np.zeros(len(starts), dtype=np.int64),
            starts=[np.array(s, int) for s in starts],
        )
    )


def test_labels_are_the_next_tokens_and_the_first_of_a_document_does_not_count() -> None:
    made = batch([0, 3, 8], [])
    assert made.tokens_BS[0].tolist() == list(range(8))
    assert made.labels_BS[0].tolist() == list(range(1, 9))
    assert made.counted_BS.tolist() == [[1, 1, 0, 1, 1, 1, 1, 0], [1] * 8]


def test_edges_are_padded_with_documents_of_no_tokens() -> None:
    assert batch([3, 5], [0]).edges_BE.tolist() == [[0, 3, 5, 8], [0, 8, 8, 8]]


def test_without_an_inner_start_there_are_no_edges() -> None:
    assert batch([0], [], [0, 8]).edges_BE is None
    assert batch([0], [1]).edges_BE.dtype == torch.int32


def test_a_context_rank_takes_its_slices_of_tokens_and_labels_and_all_edges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel_state, "get_context_parallel_world_size", lambda: 2)
    monkeypatch.setattr(parallel_state, "get_context_parallel_rank", lambda: 1)
    made = batch([0, 3])
    assert made.tokens_BS.tolist() == [[2, 3, 4, 5]]
    assert made.labels_BS.tolist() == [[3, 4, 5, 6]]
    assert made.counted_BS.tolist() == [[0, 1, 1, 1]]
    assert made.edges_BE is not None
    assert made.edges_BE.tolist() == [[0, 3, 8]]
