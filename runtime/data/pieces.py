"""Pieces at the end of a SentencePiece model, which its trainer can only put at the beginning.

A model is a protobuf message, and a protobuf message grows by appending: repeated fields go on, single ones are
replaced. Wire format: https://protobuf.dev/programming-guides/encoding; fields: sentencepiece_model.proto.
"""

_PIECES, _TRAINER_SPEC = 1, 2  # fields of ModelProto
_PIECE, _SCORE, _TYPE = 1, 2, 3  # fields of SentencePiece
_VOCAB_SIZE = 4  # field of TrainerSpec
_VARINT, _BYTES, _FIXED32 = 0, 2, 5
_CONTROL = 3  # the type that no text yields, whatever stands in it (a user-defined piece is found in text)


def append_control_pieces(model: bytes, names: tuple[str, ...], vocab_size: int) -> bytes:
    """The model with `names` as its last pieces, in that order; it then says it has `vocab_size` pieces."""
    pieces = b"".join(_message(_PIECES, _control(name)) for name in names)
    return model + pieces + _message(_TRAINER_SPEC, _tag(_VOCAB_SIZE, _VARINT) + _varint(vocab_size))


def _control(name: str) -> bytes:
    score = _tag(_SCORE, _FIXED32) + bytes(4)  # 0.0, as the trainer gives control pieces
    return _message(_PIECE, name.encode()) + score + _tag(_TYPE, _VARINT) + _varint(_CONTROL)


def _message(field: int, content: bytes) -> bytes:
    return _tag(field, _BYTES) + _varint(len(content)) + content


def _tag(field: int, wire_type: int) -> bytes:
    return _varint(field << 3 | wire_type)


def _varint(value: int) -> bytes:
    encoded = b""
    while value > 0x7F:
        encoded += bytes([value & 0x7F | 0x80])
        value >>= 7
    return encoded + bytes([value])
