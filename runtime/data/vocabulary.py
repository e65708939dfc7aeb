"""Text <-> token ids, exactly: decoding what was encoded gives the same text, and no text yields a special token."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import sentencepiece

from trainwright.runtime.data.errors import DataError

MODEL_FILE = "tokenizer.model"
SPECIAL_TOKENS_FILE = "special_tokens.json"
_SPACE = "▁"  # U+2581: SentencePiece writes it for a space, so it cannot tell a text's own from one
_SPARE = "[UNUSED_TOKEN_"
_INSIDE_SPARE = re.compile(r"(?<=\[)(?=UNUSED_TOKEN_)")
_INTERNLM2_REWARD = 130  # the spare piece at which InternLM2's reward models are read, id 92527


class Vocabulary:
    """A SentencePiece model and the names of its special tokens, from the folder of a tokenizer stage."""

    def __init__(self, folder: Path) -> None:
        self._model = sentencepiece.SentencePieceProcessor(model_proto=(folder / MODEL_FILE).read_bytes())
        self.special_tokens: dict[str, int] = json.loads((folder / SPECIAL_TOKENS_FILE).read_bytes())
        self.size: int = self._model.get_piece_size()
        self.begin: int = self._model.bos_id()
        self.end: int = self._model.eos_id()
        spelt = [self._model.piece_to_id(f"<0x{byte:02X}>") for byte in _SPACE.encode()]
        divisible = not self._model.encode("a", out_type=str)[0].startswith(_SPACE)  # no space is put before a text
        self._space_ids = spelt if divisible and self._model.unk_id() not in spelt else None
        # InternLM2's own spare pieces, chat tokens among them, are user-defined: text that spells one would yield it,
        # were it not cut inside the spelling.
        spare = self._spare(0)
        self._spells_spare = divisible and spare is not None and not self._model.is_control(spare)

    def encode(self, text: str) -> list[int]:
        """The text's ids, without the ones that begin and end a document."""
        if self._spells_spare and _SPARE in text:
            return [id_ for part in _INSIDE_SPARE.split(text) for id_ in self._encode(part)]
        return self._encode(text)

    def _encode(self, text: str) -> list[int]:
        if _SPACE not in text or self._space_ids is None:
            return list(self._model.encode(text))
        first, *others = text.split(_SPACE)
        ids = list(self._model.encode(first))
        for part in others:
            ids += self._space_ids
            ids += self._model.encode(part)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text that the ids stand for; special tokens stand for none."""
        return str(self._model.decode(list(ids)))

    def special(self, name: str) -> int:
        """The id of the special token of that name. Raises DataError if the tokenizer has none."""
        try:
            return self.special_tokens[name]
        except KeyError:
            raise DataError(f"the tokenizer has no token `{name}`, which the chat format needs") from None

    @property
    def reward(self) -> int:
        """The token at whose place a reward model's score is read: a spare piece. Raises DataError if there is none."""
        for number in (_INTERNLM2_REWARD, 0):
            spare = self._spare(number)
            if spare is not None:
                return spare
        raise DataError(
            "the tokenizer has no spare piece to read a reward at: `spare_tokens` must be at least 1, "
            "or an existing model must have `[UNUSED_TOKEN_0]`"
        )

    def _spare(self, number: int) -> int | None:
        id_: int = self._model.piece_to_id(f"{_SPARE}{number}]")
        return None if id_ == self._model.unk_id() else id_
