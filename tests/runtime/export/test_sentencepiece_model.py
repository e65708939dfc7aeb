"""What is read of a model file is what SentencePiece itself says of it."""

from collections.abc import Callable

import pytest
import sentencepiece

from trainwright.runtime.export.sentencepiece_model import Kind, parse


@pytest.mark.parametrize(
    ("changes", "prefix", "removes", "rewrites"),
    [
        ({}, False, False, False),
        (
            {"add_dummy_prefix": True, "remove_extra_whitespaces": True, "normalization_rule_name": "nmt_nfkc"},
            True,
            True,
            True,
        ),
    ],
)
def test_every_piece_and_option_is_read(
    train: Callable[..., bytes], changes: dict[str, object], prefix: bool, removes: bool, rewrites: bool
) -> None:
    data = train(**changes)
    library = sentencepiece.SentencePieceProcessor(model_proto=data)
    model = parse(data)
    assert [piece.text for piece in model.pieces] == [library.id_to_piece(i) for i in range(len(library))]
    assert [piece.score for piece in model.pieces] == [library.get_score(i) for i in range(len(library))]
    assert [piece.kind == Kind.CONTROL for piece in model.pieces] == [
        library.is_control(i) for i in range(len(library))
    ]
    assert [piece.kind == Kind.BYTE for piece in model.pieces] == [library.is_byte(i) for i in range(len(library))]
    assert model.pieces[library.piece_to_id("[UNUSED_TOKEN_0]")].kind == Kind.USER_DEFINED
    assert (model.unknown_id, model.begin_id, model.end_id) == (library.unk_id(), library.bos_id(), library.eos_id())
    assert model.is_bpe
    assert model.byte_fallback
    assert (model.adds_dummy_prefix, model.removes_extra_whitespace, model.rewrites_characters) == (
        prefix,
        removes,
        rewrites,
    )


def test_an_absent_special_token_is_minus_one(train: Callable[..., bytes]) -> None:
    assert parse(train(eos_id=-1)).end_id == -1


@pytest.mark.parametrize("data", [b"\x0a\xff\x01abc", b"\x0b", b"\x80"])
def test_what_is_no_model_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="SentencePiece model"):
        parse(data)
