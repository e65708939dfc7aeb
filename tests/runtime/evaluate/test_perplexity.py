"""Bits per byte, by hand."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trainwright.runtime.data.indexed import token_dtype, tokens_path, write_documents
from trainwright.runtime.evaluate.perplexity import write_scores
from trainwright.spec.plan import PerplexityPlan

TEXTS = ["abcdefgh" * 9, "a", "bcdc" * 30]


class Letters:
    """A vocabulary of one token a letter: `a` is 3."""

    def decode(self, ids: list[int]) -> str:
        return "".join(chr(ord("a") + index - 3) for index in ids if index >= 3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the tokenize stage leaves for one source: documents `<s>` text `</s>`."""
    dtype = token_dtype(96)
    documents = [np.array([1, *(ord(letter) - ord("a") + 3 for letter in text), 2]) for text in TEXTS]
    write_documents(tokens_path(tmp_path, "letters", "held_out"), documents, dtype)
    counts = {"letters": {"held_out": {"bytes": sum(map(len, TEXTS))}}}
    (tmp_path / "counts.json").write_text(json.dumps(counts))
    return tmp_path


def scores(model: Any, folder: Path, sequence_length: int, batch: int) -> dict[str, Any]:
    plan = PerplexityPlan(sources=("letters",), sequence_length=sequence_length, batch=batch)
    vocabulary: Any = Letters()
    write_scores(model, vocabulary, folder, plan, folder, lambda _: None)
    content: dict[str, dict[str, Any]] = json.loads((folder / "scores.json").read_bytes())
    return content["letters"]


def test_a_uniform_model_pays_log2_of_the_vocabulary_for_every_token(model: Any, folder: Path) -> None:
    with torch.no_grad():
        weights = model.output_layer.weight.clone()
        model.output_layer.weight.zero_()
    found = scores(model, folder, sequence_length=16, batch=3)
    with torch.no_grad():
        model.output_layer.weight.copy_(weights)
    tokens = sum(len(text) + 1 for text in TEXTS)  # with </s>, without <s>
    text_bytes = sum(map(len, TEXTS))
    assert found["tokens"] == tokens
    assert found["bytes"] == text_bytes
    assert found["bits_per_byte"] == pytest.approx(math.log2(96) * tokens / text_bytes, rel=1e-6)
    assert found["perplexity"] == pytest.approx(96, rel=1e-6)
    assert 0 < found["gzip_bits_per_byte"] < 8


def test_the_batch_and_its_padding_change_nothing(model: Any, folder: Path) -> None:
    alone = scores(model, folder, sequence_length=16, batch=1)
    together = scores(model, folder, sequence_length=16, batch=64)
    assert together["nats"] == pytest.approx(alone["nats"], rel=1e-6)
    assert together["tokens"] == alone["tokens"]


def test_the_loss_is_that_of_each_token_after_those_before_it(model: Any, folder: Path) -> None:
    found = scores(model, folder, sequence_length=500, batch=2)
    nats = 0.0
    for text in TEXTS:
        ids = torch.tensor([[1, *(ord(letter) - ord("a") + 3 for letter in text), 2]])
        with torch.no_grad():
            logits = model(ids, torch.arange(ids.shape[1])[None], None)
        nats += float(torch.nn.functional.cross_entropy(logits[0, :-1].double(), ids[0, 1:], reduction="sum"))
    assert found["nats"] == pytest.approx(nats, rel=1e-6)
