"""A SentencePiece model file, read: its pieces, and how it treats text.

The library gives neither the types of pieces nor the normaliser's options, and its generated protobuf module wants
exactly its own release of the protobuf runtime. The wire format is a few lines.
Source: https://protobuf.dev/programming-guides/encoding; fields and defaults: sentencepiece_model.proto.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_Value = int | bytes


class Kind(IntEnum):
    """The type of a piece, as the file numbers it."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3  # no text yields it
    USER_DEFINED = 4  # found in text before anything is merged
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Piece:
    text: str
    score: float
    kind: int


@dataclass(frozen=True)
class SentencePieceModel:
    """What `tokenizer.json` needs to know of a model."""

    pieces: tuple[Piece, ...]
    is_bpe: bool
    byte_fallback: bool
    unknown_id: int
    begin_id: int
    end_id: int
    normalizer: str
    rewrites_characters: bool
    adds_dummy_prefix: bool
    removes_extra_whitespace: bool


def parse(data: bytes) -> SentencePieceModel:
    """The model in the bytes of its file. Raises ValueError if they are none."""
    pieces: list[Piece] = []
    trainer: dict[int, _Value] = {}
    normalizer: dict[int, _Value] = {}
    for field, value in _fields(data):
        if field == 1:
            pieces.append(_piece(_message(value)))
        elif field == 2:
            trainer |= _message(value)  # a field that comes twice counts the second time
        elif field == 3:
            normalizer |= _message(value)
    return SentencePieceModel(
        pieces=tuple(pieces),
        is_bpe=trainer.get(3, 1) == 2,
        byte_fallback=bool(trainer.get(35, 0)),
        unknown_id=_id(trainer.get(40, 0)),
        begin_id=_id(trainer.get(41, 1)),
        end_id=_id(trainer.get(42, 2)),
        normalizer=_bytes(normalizer.get(1, b"")).decode(),
        rewrites_characters=bool(normalizer.get(2, b"")),
        adds_dummy_prefix=bool(normalizer.get(3, 1)),
        removes_extra_whitespace=bool(normalizer.get(4, 1)),
    )


def _piece(fields: dict[int, _Value]) -> Piece:
    (score,) = struct.unpack("<f", _bytes(fields.get(2, bytes(4))))
    return Piece(_bytes(fields.get(1, b"")).decode(), score, _id(fields.get(3, Kind.NORMAL)))


def _message(value: _Value) -> dict[int, _Value]:
    return dict(_fields(_bytes(value)))


def _fields(data: bytes) -> Iterator[tuple[int, _Value]]:
    """Number and value of every field of a message, in order."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield tag >> 3, value
            continue
        if kind == _BYTES:
            size, at = _varint(data, at)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError("not a SentencePiece model")
        if at + size > len(data):
            raise ValueError("the SentencePiece model is cut short")
        yield tag >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at `at`, and where the next field begins."""
    value = shift = 0
    while at < len(data):
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ValueError("the SentencePiece model is cut short")


def _bytes(value: _Value) -> bytes:
    if isinstance(value, int):
        raise ValueError("not a SentencePiece model")
    return value


def _id(value: _Value) -> int:
    if isinstance(value, bytes):
        raise ValueError("not a SentencePiece model")
    return value - (1 << 64) if value >> 63 else value  # -1 says that there is none
