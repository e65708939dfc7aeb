"""The tokenize stage and the IndexedDataset it writes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainwright.runtime.data.document import documents_path, read_documents
from trainwright.runtime.data.errors import DataError
from trainwright.runtime.data.indexed import TokenizedSource, token_dtype, tokens_path, write_documents
from trainwright.runtime.data.vocabulary import Vocabulary


def test_every_document_is_there_once_between_its_marks(corpus: Any) -> None:
    vocabulary = Vocabulary(corpus.tokenizer)
    for source in corpus.counts:
        for split in ("train", "held_out"):
            documents = list(read_documents(documents_path(corpus.ingest, source, split)))
            if split == "train":
                documents.sort(key=lambda document: document.id)
            tokens = TokenizedSource(tokens_path(corpus.tokens, source, split))
            assert len(tokens) == len(documents)
            for index, document in enumerate(documents):
                ids = tokens.tokens(index)
                assert (ids[0], ids[-1]) == (1, 2)
                assert vocabulary.decode(ids[1:-1].tolist()) == document.text


def test_the_counts_are_those_of_the_documents(corpus: Any) -> None:
    for source, splits in corpus.counts.items():
        for split, counts in splits.items():
            documents = list(read_documents(documents_path(corpus.ingest, source, split)))
            tokens = TokenizedSource(tokens_path(corpus.tokens, source, split))
            assert counts == {
                "documents": len(documents),
                "tokens": tokens.token_count,
                "bytes": sum(len(document.text.encode()) for document in documents),
            }


def test_training_documents_are_shuffled(corpus: Any) -> None:
    written = [document.id for document in read_documents(documents_path(corpus.ingest, "poems", "train"))]
    assert written != sorted(written)


def test_the_number_of_workers_changes_no_byte(corpus: Any, run_tokenize: Callable[..., Path]) -> None:
    sources = tuple(corpus.counts)
    other = run_tokenize(corpus.ingest, corpus.tokenizer, sources, 1024, workers=2)
    assert {path.name: path.read_bytes() for path in other.iterdir()} == {
        path.name: path.read_bytes() for path in corpus.tokens.iterdir()
    }


def test_megatrons_type_by_vocabulary() -> None:
    assert token_dtype(65_499) == np.uint16
    assert token_dtype(65_500) == np.int32
    assert token_dtype(92_544) == np.int32


def test_a_slice_of_a_document_stays_inside_it(tmp_path: Path) -> None:
    write_documents(tmp_path / "x", [np.arange(5), np.arange(10, 13)], np.dtype(np.int32))
    source = TokenizedSource(tmp_path / "x")
    assert source.lengths_D.tolist() == [5, 3]
    assert source.token_count == 8
    assert source.tokens(0, 3, 99).tolist() == [3, 4]
    assert source.tokens(1).tolist() == [10, 11, 12]


def test_a_split_without_documents_is_read_as_such(tmp_path: Path) -> None:
    write_documents(tmp_path / "x", [], np.dtype(np.uint16))
    source = TokenizedSource(tmp_path / "x")
    assert (len(source), source.token_count) == (0, 0)


@pytest.mark.parametrize("damage", ["missing", "header", "size"])
def test_what_is_no_tokenized_source_is_one_sentence(damage: str, tmp_path: Path) -> None:
    write_documents(tmp_path / "x", [np.arange(5)], np.dtype(np.uint16))
    if damage == "missing":
        (tmp_path / "x.bin").unlink()
    elif damage == "header":
        (tmp_path / "x.idx").write_bytes(bytes(34))
    else:
        (tmp_path / "x.bin").write_bytes(bytes(3))
    with pytest.raises(DataError):
        TokenizedSource(tmp_path / "x")


@pytest.mark.slow
@pytest.mark.parametrize("vocab_size", [1024, 92_544])
def test_megatron_core_writes_the_same_bytes(vocab_size: int, corpus: Any, tmp_path: Path) -> None:
    from trainwright.runtime import host

    host.install()
    from megatron.core.datasets.indexed_dataset import DType, IndexedDataset, IndexedDatasetBuilder

    dtype = token_dtype(vocab_size)
    assert DType.optimal_dtype(vocab_size) == dtype
    tokens = TokenizedSource(tokens_path(corpus.tokens, "poems", "train"))
    documents = [tokens.tokens(index) for index in range(len(tokens))]
    builder = IndexedDatasetBuilder(str(tmp_path / "theirs.bin"), dtype=DType.optimal_dtype(vocab_size))
    for document in documents:
        builder.add_document(document, [len(document)])
    builder.finalize(str(tmp_path / "theirs.idx"))
    write_documents(tmp_path / "ours", documents, dtype)
    for suffix in ("bin", "idx"):
        assert (tmp_path / f"ours.{suffix}").read_bytes() == (tmp_path / f"theirs.{suffix}").read_bytes()
    theirs = IndexedDataset(str(tmp_path / "ours"))
    assert np.array_equal(theirs[7], documents[7])


def test_counts_are_written_beside_the_tokens(corpus: Any) -> None:
    assert json.loads((corpus.tokens / "counts.json").read_bytes()) == corpus.counts
    assert sorted(corpus.counts) == ["code", "novels", "poems"]
