"""A row of messages -> its tokens in segments, its identity, and the key that decides whether it is held out.

A row's identity is all that it holds, so equal rows are duplicates wherever they stand. What decides is the prompt
where there is one: answers to one prompt are on one side, and so are a query and the answers that were ranked for it.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainwright.runtime.align.data.chat import Message, answer, generation_prompt_tokens, turn
from trainwright.runtime.align.data.messages import AnyRow, ChatRow, PreferenceRow
from trainwright.runtime.align.data.rows import Tokens
from trainwright.runtime.data.vocabulary import Vocabulary

_DIGEST_BYTES = 16


@dataclass(frozen=True)
class Encoded:
    """`digest` identifies the row, `key` decides its split, 16 bytes each; the others are as `rows` keeps them."""

    digest: bytes
    key: bytes
    domain: str
    segments: list[Tokens]
    roles: tuple[str, ...] = ()
    trained_L: NDArray[np.bool_] | None = None
    margin: float = 0.0


def encode_row(row: AnyRow, vocabulary: Vocabulary, code_newline: bool) -> Encoded:
    """The row's tokens. Raises DataError if the tokenizer has no chat tokens."""
    if isinstance(row, ChatRow):
        turns = [turn(message, vocabulary, code_newline=code_newline) for message in row.messages]
        segments = _arrays([[vocabulary.begin], *(each.tokens for each in turns)])
        trained_L = np.array([False, *(flag for each in turns for flag in each.trained)], dtype=np.bool_)
        digest = _digest(segments, row.domain, trained_L.tobytes())
        roles = ("begin", *(message.role for message in row.messages))
        return Encoded(digest, digest, row.domain, segments, roles, trained_L)
    prompt = encode_prompt(row.prompt, vocabulary, code_newline=code_newline)
    if isinstance(row, PreferenceRow):
        answers = [answer(message, vocabulary, code_newline=code_newline) for message in row.answers]
        segments = _arrays([prompt, *answers])
        digest = _digest(segments, row.domain, repr(row.margin).encode())
        return Encoded(digest, _digest(segments[:1]), row.domain, segments, margin=row.margin)
    segments = _arrays([prompt])
    return Encoded(_digest(segments, row.domain), _digest(segments), row.domain, segments)


def encode_prompt(messages: list[Message], vocabulary: Vocabulary, *, code_newline: bool) -> list[int]:
    """The turns and the generation prompt, without `<s>`."""
    turns = [turn(message, vocabulary, code_newline=code_newline) for message in messages]
    return [*(token for each in turns for token in each.tokens), *generation_prompt_tokens(vocabulary)]


def _arrays(segments: list[list[int]]) -> list[Tokens]:
    return [np.array(segment, dtype=np.int32) for segment in segments]


def _digest(segments: list[Tokens], domain: str = "", more: bytes = b"") -> bytes:
    state = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for segment in segments:
        state.update(len(segment).to_bytes(8, "little") + segment.astype("<i4").tobytes())
    state.update(domain.encode() + b"\0" + more)
    return state.digest()
