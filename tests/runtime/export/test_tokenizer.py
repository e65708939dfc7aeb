"""The exported tokenizer gives the ids of the SentencePiece model it was made of."""

import gzip
import io
import json
import random
from pathlib import Path
from typing import Any

import pytest
import sentencepiece

from trainwright.runtime.export.tokenizer import TokenizerNotConvertible, write_tokenizer

CORPUS = Path(__file__).parents[3] / "examples" / "corpus"
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


def documents() -> list[str]:
    texts = []
    for name, count in (("novels-en", 12), ("poems-zh", 300)):
        with gzip.open(CORPUS / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
            texts += [json.loads(line)["text"] for _, line in zip(range(count), file, strict=False)]
    return [*texts, Path(json.__file__).read_text(encoding="utf-8"), Path(random.__file__).read_text(encoding="utf-8")]


def train(**changes: Any) -> bytes:
    model = io.BytesIO()
    options: dict[str, Any] = {
        "vocab_size": 2000,
        "character_coverage": 0.98,
        "model_type": "bpe",
        "byte_fallback": True,
        "split_digits": True,
        "normalization_rule_name": "identity",
        "add_dummy_prefix": False,
        "remove_extra_whitespaces": False,
        "allow_whitespace_only_pieces": True,
        "user_defined_symbols": ["▁▁▁▁", "two words", "[UNUSED_TOKEN_0]"],
        "control_symbols": CHAT,
        "num_threads": 1,
        "max_sentence_length": 1 << 20,
        "minloglevel": 2,
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(documents()), model_writer=model, **(options | changes)
    )
    return model.getvalue()


@pytest.fixture(
    scope="module",
    params=[{}, {"user_defined_symbols": ["[UNUSED_TOKEN_0]"], "add_dummy_prefix": True}],
    ids=["as written", "dummy prefix"],
)
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[sentencepiece.SentencePieceProcessor, Any]:
    """The SentencePiece model, and what transformers makes of its export."""
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    model = train(**request.param)
    (folder / "source.model").write_bytes(model)
    out = folder / "out"
    out.mkdir()
    write_tokenizer(folder / "source.model", out)
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


def test_ids_are_equal_on_real_documents_and_on_noise(exported: tuple[Any, Any]) -> None:
    ours, theirs = exported
    draw = random.Random(0)
    noise = ["".join(draw.choices("ab \n  \t1春é_=()aaa", k=draw.randint(1, 60))) for _ in range(500)]
    for text in documents() + noise:
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
def test_a_model_that_rewrites_text_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    (tmp_path / "source.model").write_bytes(train(**changes))
    with pytest.raises(TokenizerNotConvertible):
        write_tokenizer(tmp_path / "source.model", tmp_path)
