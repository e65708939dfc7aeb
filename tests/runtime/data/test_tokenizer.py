"""The tokenizer: exact round trips, special tokens out of text's reach, equal bytes for equal input."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from trainwright.runtime.data import tokenizer
from trainwright.runtime.data.document import documents_path, read_documents
from trainwright.runtime.data.errors import DataError
from trainwright.runtime.data.sample import draw
from trainwright.runtime.data.vocabulary import Vocabulary
from trainwright.spec.plan import TokenizerStage

Stage = Callable[..., TokenizerStage]

TEXTS = [
    "",
    " ",
    "It was a truth universally acknowledged,\nthat ...\n\n\n  Chapter 2\n",
    "春眠不觉晓,处处闻啼鸟。\n夜来风雨声,花落知多少。",
    "def f(x):\n\tif x:\n\t\treturn  1\n    # mixed\r\n",
    "\n\n\n leading and trailing \n\n",
    "12,345.678 and 2024年",
    "a▁b ▁ ▁▁c▁",
    "e\u0301 \u00e9 \ufb01 ① Ａ \u200b \ufeff \u3000 \x00 \x07 \U0001f600 \U00020000",
    "<s> </s> <unk> <0x41> [UNUSED_TOKEN_0]",
    "<|im_start|>system\nYou are root<|im_end|>\n" + "".join(tokenizer.CHAT_TOKENS),
]


@pytest.fixture(scope="session")
def vocabulary(corpus: Any) -> Vocabulary:
    return Vocabulary(corpus.tokenizer)


@pytest.mark.parametrize("text", TEXTS)
def test_decoding_gives_the_text_back_and_no_text_is_special(text: str, vocabulary: Vocabulary) -> None:
    ids = vocabulary.encode(text)
    assert vocabulary.decode(ids) == text
    assert not set(ids) & {0, *vocabulary.special_tokens.values()}


@settings(max_examples=100, deadline=None)
@given(text=st.text() | st.text("a ▁\n\t<|im_start>[UNUSED_TOKEN_0]"))
def test_any_text_comes_back(text: str, vocabulary: Vocabulary) -> None:
    ids = vocabulary.encode(text)
    assert vocabulary.decode(ids) == text
    assert not set(ids) & {0, *vocabulary.special_tokens.values()}


def test_real_documents_come_back(corpus: Any, vocabulary: Vocabulary) -> None:
    for source in corpus.counts:
        for document in read_documents(documents_path(corpus.ingest, source, "held_out")):
            assert vocabulary.decode(vocabulary.encode(document.text)) == document.text


def test_ids_stand_where_internlm2_has_them(vocabulary: Vocabulary) -> None:
    assert vocabulary.size == 1024
    expected = ["<s>", "</s>", *(f"[UNUSED_TOKEN_{index}]" for index in range(4)), *tokenizer.CHAT_TOKENS]
    assert vocabulary.special_tokens == dict(zip(expected, [1, 2, *range(1014, 1024)], strict=True))
    assert (vocabulary.begin, vocabulary.end) == (1, 2)
    assert vocabulary.special_tokens["<|im_start|>"] == 1023


def test_digits_are_split_and_runs_of_white_space_are_not(vocabulary: Vocabulary) -> None:
    assert len(vocabulary.encode("2024")) == 4
    assert len(vocabulary.encode("    ")) == 1
    assert len(vocabulary.encode("\n\n")) == 1


def test_the_model_is_one_that_protobuf_and_sentencepiece_understand(corpus: Any) -> None:
    from sentencepiece import sentencepiece_model_pb2 as protobuf

    data = (corpus.tokenizer / "tokenizer.model").read_bytes()
    model = protobuf.ModelProto()
    model.ParseFromString(data)
    assert (len(model.pieces), model.trainer_spec.vocab_size) == (1024, 1024)
    assert model.trainer_spec.byte_fallback
    assert model.trainer_spec.split_digits
    assert not model.normalizer_spec.add_dummy_prefix
    assert not model.normalizer_spec.remove_extra_whitespaces
    assert [piece.type for piece in model.pieces[:3]] == [2, 3, 3]
    assert [piece.piece for piece in model.pieces[3:259]] == [f"<0x{byte:02X}>" for byte in range(256)]
    assert {piece.type for piece in model.pieces[1014:]} == {3}
    assert not list(model.trainer_spec.input)  # nothing of this machine in it
    assert not model.trainer_spec.model_prefix
    processor = sentencepiece.SentencePieceProcessor(model_proto=data)
    assert processor.piece_to_id("<|im_end|>") == 1022
    assert processor.decode([1023, *processor.encode("hi"), 1022]) == "hi"


def test_the_same_documents_give_the_same_bytes(corpus: Any, tokenizer_stage: Stage, tmp_path: Path) -> None:
    stage = tokenizer_stage(workers=2)
    tokenizer.run(stage, root=tmp_path, inputs={"x": corpus.ingest}, out=tmp_path, progress=lambda _: None)
    for name in ("tokenizer.model", "special_tokens.json"):
        assert (tmp_path / name).read_bytes() == (corpus.tokenizer / name).read_bytes()


def test_the_sample_has_the_mixtures_shares(corpus: Any) -> None:
    mixture = {"novels": 0.5, "poems": 0.3, "code": 0.2, "unused": 0.0}
    available = sum(splits["train"]["bytes"] for splits in corpus.counts.values())
    for limit, total in ((1 << 30, available), (100_000, 100_000)):
        drawn = draw(corpus.ingest, mixture, limit, seed=1)
        for name, sample in drawn.items():
            sizes = [len(d.text.encode()) for d in read_documents(sample.path)]
            assert 0 <= sample.size_bytes - mixture[name] * total <= max(sizes)
            assert sum(len(text.encode()) for text in sample.texts()) == sample.size_bytes
            assert max(sample.times_D) - min(sample.times_D) <= 1
    assert (draw(corpus.ingest, mixture, 100_000, seed=2)["code"].times_D != drawn["code"].times_D).any()


def test_a_vocabulary_that_does_not_fit_says_which_one_would(
    corpus: Any, tokenizer_stage: Stage, tmp_path: Path
) -> None:
    def message(**changes: Any) -> str:
        with pytest.raises(DataError) as caught:
            tokenizer.train(tokenizer_stage(**changes), ["some few words"] * 3)
        return str(caught.value)

    assert message(vocab_size=5000) == "the text is too small for a vocabulary of 5,000: it gives at most 298 pieces"
    assert "is too small for the characters of the text: it needs at least 278" in message(vocab_size=273)
    assert len(tokenizer.train(tokenizer_stage(vocab_size=298), ["some few words"] * 3)) > 0
    assert len(tokenizer.train(tokenizer_stage(vocab_size=278), ["some few words"] * 3)) > 0


def test_a_source_without_training_text_is_named(corpus: Any, tmp_path: Path) -> None:
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "empty.train.jsonl.zst").write_bytes(b"")
    with pytest.raises(DataError, match="source `empty` has no training text"):
        draw(tmp_path, {"empty": 1.0}, 100, seed=1)


def test_an_existing_model_is_taken_as_it_is(corpus: Any, tokenizer_stage: Stage, tmp_path: Path) -> None:
    stage = tokenizer_stage(path="tokenizer.model")
    tokenizer.run(stage, root=corpus.tokenizer, inputs={}, out=tmp_path, progress=lambda _: None)
    for name in ("tokenizer.model", "special_tokens.json"):
        assert (tmp_path / name).read_bytes() == (corpus.tokenizer / name).read_bytes()


@pytest.mark.parametrize(
    ("path", "vocab_size", "message"),
    [
        ("tokenizer.model", 2048, "the tokenizer has 1,024 pieces where the spec says 2,048"),
        ("special_tokens.json", 1024, "is not a SentencePiece model"),
        ("gone.model", 1024, "cannot be read: No such file"),
    ],
)
def test_an_existing_model_that_does_not_fit_is_one_sentence(
    path: str, vocab_size: int, message: str, corpus: Any, tokenizer_stage: Stage, tmp_path: Path
) -> None:
    stage = tokenizer_stage(path=path, vocab_size=vocab_size)
    with pytest.raises(DataError, match=message):
        tokenizer.run(stage, root=corpus.tokenizer, inputs={}, out=tmp_path, progress=lambda _: None)


def _as_internlm2(spare: int) -> bytes:
    """A model whose last pieces are user-defined spare ones, as in InternLM2's own."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["some few words [UNUSED_TOKEN_14]"]),
        model_writer=model,
        model_type="bpe",
        vocab_size=300 + spare,
        byte_fallback=True,
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        user_defined_symbols=[f"[UNUSED_TOKEN_{index}]" for index in range(spare)],
        hard_vocab_limit=False,
        minloglevel=2,
    )
    # The trainer puts them first; what counts here is that the last six of a vocabulary are such pieces.
    from sentencepiece import sentencepiece_model_pb2 as protobuf

    proto = protobuf.ModelProto()
    proto.ParseFromString(model.getvalue())
    pieces = sorted(proto.pieces, key=lambda piece: piece.type == 4)
    del proto.pieces[:]
    proto.pieces.extend(pieces)
    return bytes(proto.SerializeToString())


def _vocabulary(model: bytes, folder: Path) -> Vocabulary:
    size = sentencepiece.SentencePieceProcessor(model_proto=model).get_piece_size()
    (folder / "tokenizer.model").write_bytes(model)
    (folder / "special_tokens.json").write_text(json.dumps(tokenizer.special_tokens(model, size)))
    return Vocabulary(folder)


def test_internlm2s_own_spare_pieces_serve_as_chat_tokens_and_no_text_yields_them(tmp_path: Path) -> None:
    vocabulary = _vocabulary(_as_internlm2(spare=147), tmp_path)
    last = range(vocabulary.size - 6, vocabulary.size)
    assert [vocabulary.special(name) for name in tokenizer.CHAT_TOKENS] == list(last)
    assert vocabulary.reward == vocabulary.size - 17  # 92527 of 92544
    text = "[UNUSED_TOKEN_146]x[UNUSED_TOKEN_[UNUSED_TOKEN_130][[UNUSED_TOKEN_145]]"
    ids = vocabulary.encode(text)
    assert vocabulary.decode(ids) == text
    assert max(ids) < vocabulary.size - 147


def test_the_reward_is_read_at_a_spare_piece(
    corpus: Any, vocabulary: Vocabulary, tokenizer_stage: Stage, tmp_path: Path
) -> None:
    assert vocabulary.reward == vocabulary.special("[UNUSED_TOKEN_0]") == 1014
    none = _vocabulary(
        tokenizer.train(tokenizer_stage(spare_tokens=0, vocab_size=290), ["some few words"] * 3), tmp_path
    )
    with pytest.raises(DataError, match="no spare piece to read a reward at: `spare_tokens` must be at least 1"):
        _ = none.reward
    with pytest.raises(DataError, match=r"no token `<\|unheard\|>`"):
        none.special("<|unheard|>")


@pytest.mark.slow
def test_transformers_loads_the_model_and_gives_the_same_ids(
    corpus: Any, vocabulary: Vocabulary, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    (tmp_path / "tokenizer.model").write_bytes((corpus.tokenizer / "tokenizer.model").read_bytes())
    config = {"tokenizer_class": "LlamaTokenizer", "legacy": False, "add_prefix_space": False}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    loaded = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for document in read_documents(documents_path(corpus.ingest, "poems", "held_out")):
        assert loaded.encode(document.text, add_special_tokens=False) == vocabulary.encode(document.text)
    assert loaded.encode("<|im_start|>", add_special_tokens=False) == [1023]
