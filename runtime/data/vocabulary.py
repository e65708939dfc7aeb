"""Text <-> token ids, exactly: decoding what was encoded gives the same text, and no text yields a special token."""

import json
from collections.abc import Sequence
from pathlib import Path

import sentencepiece

MODEL_FILE = "tokenizer.model"
SPECIAL_TOKENS_FILE = "special_tokens.json"
_SPACE = "▁"  # U+2581: SentencePiece writes it for a space, so it cannot tell a text's own from one


class Vocabulary:
    """A SentencePiece model and the names of its special tokens, from the folder of a tokenizer stage."""

    def __init__(self, folder: Path) -> None:
        self._model = sentencepiece.SentencePieceProcessor(model_proto=(folder / MODEL_FILE).read_bytes())
        self.special_tokens: dict[str, int] = json.loads((folder / SPECIAL_TOKENS_FILE).read_bytes())
        self.size: int = self._model.get_piece_size()
        self.begin: int = self._model.bos_id()
        self.end: int = self._model.eos_id()
        spelt = [self._model.piece_to_id(f"<0x{byte:02X}>") for byte in _SPACE.encode()]
        divisible = "".join(self._model.encode("a", out_type=str)) == "a"  # no space is put before a text
        self._space_ids = spelt if divisible and self._model.unk_id() not in spelt else None

    def encode(self, text: str) -> list[int]:
        """The text's ids, without the ones that begin and end a document."""
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
