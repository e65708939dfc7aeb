"""The exported tokenizer gives the ids of the SentencePiece model it was made of."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece

from trainwright.runtime.export.tokenizer import TokenizerNotConvertible, write_tokenizer

CHAT = ["<|im_start|>", "<|im_end|>"]
TEXTS = [
    "It is a truth universally acknowledged,\n\nthat a single man --",
    "春眠不覺曉，處處聞啼鳥。",
    "def f(x: int) -> str:\n\tif x == 12345:\n        return '\\n'   # three spaces   \n\n",
    "  leading and trailing  ",
    "\n",
    "two words [UNUSED_TOKEN_0]",
    "😀 é \x00 ▁ 한국어",
]


@pytest.fixture(
    scope="module",
    params=[{}, {"user_defined_symbols": ["[UNUSED_TOKEN_0]"], "add_dummy_prefix": True}],
    ids=["as written", "dummy prefix"],
)
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, train: Callable[..., bytes]
) -> tuple[sentencepiece.SentencePieceProcessor, Any]:
    """The SentencePiece model, and what transformers makes of its export."""
    from transformers import AutoTokenizer

    out = tmp_path_factory.mktemp("tokenizer")
    model = train(**request.param)
    write_tokenizer(model, {}, out)
    theirs = AutoTokenizer.from_pretrained(out, local_files_only=True)
    return sentencepiece.SentencePieceProcessor(model_proto=model), theirs


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_equal_and_text_comes_back(exported: tuple[Any, Any], text: str) -> None:
    ours, theirs = exported
    ids = theirs(text, add_special_tokens=False)["input_ids"]
    assert ids == ours.encode(text)
    assert theirs.decode(ids) == ours.decode(ids)
    if "▁" not in text:  # which SentencePiece takes for a space
        assert theirs.decode(ids) == text


def test_ids_are_equal_on_real_documents_and_on_noise(exported: tuple[Any, Any], texts: list[str]) -> None:
    ours, theirs = exported
    draw = random.Random(0)
    noise = ["".join(draw.choices("ab \n  \t1春é_=()aaa", k=draw.randint(1, 60))) for _ in range(500)]
    for text in texts + noise:
        assert theirs(text, add_special_tokens=False)["input_ids"] == ours.encode(text)


def test_a_document_opens_with_the_begin_token_and_chat_tokens_are_special(exported: tuple[Any, Any]) -> None:
    ours, theirs = exported
    assert theirs("a")["input_ids"] == [ours.bos_id(), *ours.encode("a")]
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (1, 2, 2)
    for name in CHAT:
        assert theirs.convert_tokens_to_ids(name) == ours.piece_to_id(name)
        assert name in theirs.all_special_tokens
        assert theirs(name, add_special_tokens=False)["input_ids"] == [ours.piece_to_id(name)]


@pytest.mark.parametrize(
    "changes",
    [
        {"normalization_rule_name": "nmt_nfkc"},
        {"remove_extra_whitespaces": True},
        {"model_type": "unigram"},
        {"add_dummy_prefix": True},
    ],
)
def test_a_model_that_rewrites_text_is_refused(
    tmp_path: Path, train: Callable[..., bytes], changes: dict[str, Any]
) -> None:
    with pytest.raises(TokenizerNotConvertible):
        write_tokenizer(train(**changes), {}, tmp_path)


def test_a_spare_piece_may_serve_as_a_chat_token(tmp_path: Path, train: Callable[..., bytes]) -> None:
    """InternLM2's own model knows `<|im_start|>` only as `[UNUSED_TOKEN_145]`."""
    from transformers import AutoTokenizer

    model = train(control_symbols=["[UNUSED_TOKEN_1]"])
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
    named = {
        "<|im_end|>": pieces.piece_to_id("[UNUSED_TOKEN_0]"),
        "<|im_start|>": pieces.piece_to_id("[UNUSED_TOKEN_1]"),
    }
    write_tokenizer(model, named, tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    for name, index in named.items():
        assert theirs(name, add_special_tokens=False)["input_ids"] == [index]
        assert theirs.decode([index], skip_special_tokens=True) == ""
    assert len(theirs) == pieces.get_piece_size()
