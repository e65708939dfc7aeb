"""A SentencePiece BPE model as the files that `transformers.AutoTokenizer` loads, giving the same ids.

`tokenizer.json` is the whole tokenizer in the format of the `tokenizers` library; `tokenizer.model` goes along for the
programs that read SentencePiece themselves. Control pieces become special tokens. SentencePiece merges the adjacent
pair whose union has the best score; `tokenizers` wants the pairs in that order, so every way to split a piece into two
others is listed, best piece first.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentencepiece import sentencepiece_model_pb2 as protobuf

_SPACE = "▁"  # what SentencePiece writes for a space
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED = 1, 2, 3, 4
_BPE = 2


class TokenizerNotConvertible(ValueError):
    """The SentencePiece model does something that `tokenizer.json` of this version cannot say."""


@dataclass(frozen=True)
class TokenIds:
    """The ids that open and close a document."""

    begin: int
    end: int


def write_tokenizer(source: Path, out: Path) -> TokenIds:
    """`out` holds tokenizer.model, tokenizer.json, tokenizer_config.json and special_tokens_map.json.

    `source` is a SentencePiece model file. Raises TokenizerNotConvertible.
    """
    model = protobuf.ModelProto()
    model.ParseFromString(source.read_bytes())
    _refuse(model)
    shutil.copyfile(source, out / "tokenizer.model")
    specials = [piece.piece for piece in model.pieces if piece.type == _CONTROL]
    roles = {
        role: model.pieces[index].piece
        for role, index in (
            ("bos_token", model.trainer_spec.bos_id),
            ("eos_token", model.trainer_spec.eos_id),
            ("unk_token", model.trainer_spec.unk_id),
            # A pad token of its own would be one more row; InternLM2 pads with the end token too.
            ("pad_token", model.trainer_spec.eos_id),
        )
    }
    others = [piece for piece in specials if piece not in roles.values()]
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **roles,
        "additional_special_tokens": others,
        "add_bos_token": True,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": int(1e30),
    }
    _write(out / "tokenizer.json", tokenizer_json(model))
    _write(out / "tokenizer_config.json", config)
    _write(out / "special_tokens_map.json", {**roles, "additional_special_tokens": others})
    return TokenIds(begin=model.trainer_spec.bos_id, end=model.trainer_spec.eos_id)


def tokenizer_json(model: Any) -> dict[str, Any]:
    """The content of tokenizer.json for a SentencePiece `ModelProto`."""
    bos = model.trainer_spec.bos_id
    first = model.pieces[bos].piece
    steps = [{"type": "Prepend", "prepend": _SPACE}] if model.normalizer_spec.add_dummy_prefix else []
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    decode: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if model.normalizer_spec.add_dummy_prefix:
        decode.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(index, piece) for index, piece in enumerate(model.pieces) if _is_added(piece)],
        "normalizer": {"type": "Sequence", "normalizers": [*steps, replace]},
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": first, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [
                {"SpecialToken": {"id": first, "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": first, "type_id": 1}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {first: {"id": first, "ids": [bos], "tokens": [first]}},
        },
        "decoder": {"type": "Sequence", "decoders": decode},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": model.pieces[model.trainer_spec.unk_id].piece,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": model.trainer_spec.byte_fallback,
            "ignore_merges": False,
            "vocab": {piece.piece: index for index, piece in enumerate(model.pieces)},
            "merges": _merges(model),
        },
    }


def _merges(model: Any) -> list[tuple[str, str]]:
    normal = {piece.piece: piece.score for piece in model.pieces if piece.type == _NORMAL}
    ranked = sorted(normal, key=lambda piece: -normal[piece])
    return [
        (piece[:cut], piece[cut:])
        for piece in ranked
        for cut in range(1, len(piece))
        if piece[:cut] in normal and piece[cut:] in normal
    ]


def _is_added(piece: Any) -> bool:
    # SentencePiece looks for user-defined pieces after spaces were replaced: one with a true space is never found.
    return piece.type in (_UNKNOWN, _CONTROL) or (piece.type == _USER_DEFINED and " " not in piece.piece)


def _added(index: int, piece: Any) -> dict[str, Any]:
    # One with a space in it can only be found once spaces have been replaced, which is what `normalized` means.
    return {
        "id": index,
        "content": piece.piece,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": _SPACE in piece.piece,
        "special": piece.type in (_UNKNOWN, _CONTROL),
    }


def _refuse(model: Any) -> None:
    if model.trainer_spec.model_type != _BPE:
        raise TokenizerNotConvertible("only SentencePiece models of type BPE can be exported")
    if model.normalizer_spec.precompiled_charsmap or model.normalizer_spec.remove_extra_whitespaces:
        raise TokenizerNotConvertible(
            f"the tokenizer rewrites text before it encodes it (normalizer `{model.normalizer_spec.name}`"
            f"{', extra white space removed' if model.normalizer_spec.remove_extra_whitespaces else ''}), "
            "which the exported tokenizer.json would not do"
        )
    if model.normalizer_spec.add_dummy_prefix and any(map(_has_space, model.pieces)):
        raise TokenizerNotConvertible("a user-defined piece with a space and a dummy prefix cannot both be exported")


def _has_space(piece: Any) -> bool:
    return piece.type == _USER_DEFINED and _SPACE in piece.piece


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
