"""A SentencePiece BPE model as the files that `transformers.AutoTokenizer` loads, giving the same ids.

`tokenizer.json` is the whole tokenizer in the format of the `tokenizers` library; `tokenizer.model` goes along for the
programs that read SentencePiece themselves. Control pieces become special tokens. SentencePiece merges the adjacent
pair whose union has the best score; `tokenizers` wants the pairs in that order, so every way to split a piece into two
others is listed, best piece first.

The chat format goes along as a Jinja template, and the tokenizer cuts where that format cuts: after the header of an
assistant's turn, where generation begins (`align.data.chat`).

Known difference: SentencePiece never yields a special token from text, and transformers does unless it is called with
`split_special_tokens=True`. And a text's own U+2581 is a space to both, where `data.vocabulary` spells it in bytes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainwright.runtime.data.vocabulary import MODEL_FILE, SPECIAL_TOKENS_FILE
from trainwright.runtime.export.sentencepiece_model import Kind, Piece, SentencePieceModel, parse

TEMPLATE_FILE = "chat_template.jinja"
_TURN_END = "<|im_end|>"
_ASSISTANT_HEADER = r"\Aassistant\n"  # what follows `<|im_start|>`
_SPACE = "▁"  # what SentencePiece writes for a space


class TokenizerNotConvertible(ValueError):
    """The SentencePiece model does something that `tokenizer.json` of this version cannot say."""


@dataclass(frozen=True)
class TokenIds:
    """The ids that open and close a document, and the one that closes a turn of a chat, if there is one."""

    begin: int
    end: int
    turn_end: int | None = None


def export_tokenizer(folder: Path, out: Path, *, code_newline: bool) -> TokenIds:
    """`out` holds the tokenizer in the result folder of a tokenizer stage; see `write_tokenizer`."""
    named: dict[str, int] = json.loads((folder / SPECIAL_TOKENS_FILE).read_bytes())
    return write_tokenizer((folder / MODEL_FILE).read_bytes(), named, out, code_newline=code_newline)


def chat_template(code_newline: bool) -> str:
    """The chat format in Jinja, as `align.data.chat` renders it; a caller may pass another `code_newline`."""
    source = (Path(__file__).parent / TEMPLATE_FILE).read_text(encoding="utf-8")
    return source.replace("CODE_NEWLINE", json.dumps(code_newline))


def write_tokenizer(source: bytes, named: Mapping[str, int], out: Path, *, code_newline: bool = True) -> TokenIds:
    """`out` holds tokenizer.model, tokenizer.json, tokenizer_config.json and special_tokens_map.json.

    With chat tokens also chat_template.jinja, which older programs look for in tokenizer_config.json.
    `source` is a SentencePiece model; `named` gives ids the names they have as special tokens, where these are not
    the model's own (InternLM2's chat tokens are spare pieces). Raises TokenizerNotConvertible.
    """
    model = parse(source)
    _refuse(model)
    pieces = list(model.pieces)
    for name, index in named.items():
        pieces[index] = Piece(name, 0.0, Kind.CONTROL)
    chat = next((index for index, piece in enumerate(pieces) if piece.text == _TURN_END), None)
    ids = TokenIds(begin=model.begin_id, end=model.end_id, turn_end=chat)
    # A pad token of its own would be one more row; InternLM2 pads with the end token too.
    roles = {"bos_token": ids.begin, "eos_token": ids.end, "unk_token": model.unknown_id, "pad_token": ids.end}
    special = {role: pieces[index].text for role, index in roles.items()}
    special_map = {
        **special,
        "additional_special_tokens": [
            piece.text for piece in pieces if piece.kind == Kind.CONTROL and piece.text not in special.values()
        ],
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **special_map,
        "add_bos_token": True,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": int(1e30),
    }
    if ids.turn_end is not None:
        config["chat_template"] = chat_template(code_newline)
        (out / TEMPLATE_FILE).write_text(chat_template(code_newline), encoding="utf-8")
    (out / MODEL_FILE).write_bytes(source)
    _write(out / "tokenizer.json", _tokenizer_json(model, pieces, ids))
    _write(out / "tokenizer_config.json", config)
    _write(out / "special_tokens_map.json", special_map)
    return ids


def _tokenizer_json(model: SentencePieceModel, pieces: list[Piece], ids: TokenIds) -> dict[str, Any]:
    """The content of tokenizer.json; `pieces` are the model's, under their final names."""
    encode: list[dict[str, Any]] = [{"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}]
    decode: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if model.adds_dummy_prefix:
        encode.insert(0, {"type": "Prepend", "prepend": _SPACE})
        decode.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    begin = pieces[ids.begin].text
    one = [{"SpecialToken": {"id": begin, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    other = [{"SpecialToken": {"id": begin, "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(index, piece) for index, piece in enumerate(pieces) if _is_added(piece)],
        "normalizer": {"type": "Sequence", "normalizers": encode},
        "pre_tokenizer": _cut_after_header() if ids.turn_end is not None else None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": one,
            "pair": one + other,
            "special_tokens": {begin: {"id": begin, "ids": [ids.begin], "tokens": [begin]}},
        },
        "decoder": {"type": "Sequence", "decoders": decode},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": pieces[model.unknown_id].text,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": model.byte_fallback,
            "ignore_merges": False,
            "vocab": {piece.text: index for index, piece in enumerate(pieces)},
            "merges": _merges(pieces),
        },
    }


def _cut_after_header() -> dict[str, Any]:
    """A text that begins with the header of an assistant's turn is cut there, so no piece spans the cut."""
    return {"type": "Split", "pattern": {"Regex": _ASSISTANT_HEADER}, "behavior": "Isolated", "invert": False}


def _merges(pieces: list[Piece]) -> list[tuple[str, str]]:
    normal = {piece.text: piece.score for piece in pieces if piece.kind == Kind.NORMAL}
    return [
        (text[:cut], text[cut:])
        for text in sorted(normal, key=lambda text: -normal[text])
        for cut in range(1, len(text))
        if text[:cut] in normal and text[cut:] in normal
    ]


def _is_added(piece: Piece) -> bool:
    """Whether it is looked for in the text before anything is merged."""
    # SentencePiece looks for user-defined pieces after spaces were replaced: one with a true space is never found.
    return piece.kind in (Kind.UNKNOWN, Kind.CONTROL) or (piece.kind == Kind.USER_DEFINED and " " not in piece.text)


def _added(index: int, piece: Piece) -> dict[str, Any]:
    return {
        "id": index,
        "content": piece.text,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        # One with a space in it can only be found once spaces have been replaced.
        "normalized": _SPACE in piece.text,
        "special": piece.kind in (Kind.UNKNOWN, Kind.CONTROL),
    }


def _refuse(model: SentencePieceModel) -> None:
    if not model.is_bpe:
        raise TokenizerNotConvertible("only SentencePiece models of type BPE can be exported")
    if model.rewrites_characters or model.removes_extra_whitespace:
        raise TokenizerNotConvertible(
            f"the tokenizer rewrites text before it encodes it (normalizer `{model.normalizer}`, extra white space "
            f"{'removed' if model.removes_extra_whitespace else 'kept'}), which tokenizer.json would not do"
        )
    spaced = any(piece.kind == Kind.USER_DEFINED and _SPACE in piece.text for piece in model.pieces)
    if model.adds_dummy_prefix and spaced:
        raise TokenizerNotConvertible("user-defined pieces with a space and a dummy prefix cannot both be exported")


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
