"""The golden chats: rows, the text that InternLM2's layout makes of them (by hand), and the tokens of that text.

`python -m tests.runtime.align.data.golden` writes the tokens anew; read the difference.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sentencepiece

from trainwright.runtime.align.data.chat import Message, Rendered, render
from trainwright.runtime.align.data.messages import ChatRow, parse_row
from trainwright.runtime.data.vocabulary import Vocabulary

FOLDER = Path(__file__).parents[3] / "cases" / "chat"
VARIANTS = {True: "", False: "_without_code_newline"}


@dataclass(frozen=True)
class Case:
    """A row in one variant. `tokens`: a line per turn, its pieces as `+piece` if trained, else `-piece`."""

    name: str
    code_newline: bool
    row: dict[str, Any]
    text: str
    tokens: list[str]

    @property
    def messages(self) -> list[Message]:
        row = parse_row(json.dumps(self.row).encode(), "chat")
        assert isinstance(row, ChatRow)
        return row.messages

    def render(self, vocabulary: Vocabulary) -> Rendered:
        return render(self.messages, vocabulary, code_newline=self.code_newline)


def cases() -> Iterator[Case]:
    """Every case in both variants; one that has no code has the same text in both."""
    for path in sorted(FOLDER.glob("[a-z]*.json")):
        if path.name == "special_tokens.json":
            continue
        content = json.loads(path.read_bytes())
        for code_newline, suffix in VARIANTS.items():
            text = content.get(f"text{suffix}", content["text"])
            tokens = content.get(f"tokens{suffix}", content.get("tokens", []))
            yield Case(path.stem, code_newline, content["row"], "\n".join(text), tokens)


def vocabulary() -> Vocabulary:
    return Vocabulary(FOLDER)


def written(rendered: Rendered) -> list[str]:
    """The tokens as the cases hold them; no piece of this tokenizer has a true space in it."""
    model = sentencepiece.SentencePieceProcessor(model_file=str(FOLDER / "tokenizer.model"))
    pairs = zip(rendered.tokens, rendered.trained, strict=True)
    pieces = [("+" if trained else "-") + model.id_to_piece(token) for token, trained in pairs]
    return " ".join(pieces).replace(" -<|im_start|>", "\0-<|im_start|>").split("\0")


def _write() -> None:
    for case in cases():
        path = FOLDER / f"{case.name}.json"
        content = json.loads(path.read_bytes())
        suffix = VARIANTS[case.code_newline]
        if f"text{suffix}" in content:
            content[f"tokens{suffix}"] = written(case.render(vocabulary()))
            path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    _write()
