"""InternLM2's chat format as tokens: turns of ChatML with tools, a code interpreter and files.

A turn is `<|im_start|>`, the role, ` name=...` for what is not plain talk, a newline, the content, `<|im_end|>`, and a
newline. `<s>` opens the whole. Special tokens are put in by id; text goes through `Vocabulary.encode`, which yields
none whatever it spells. Text between two special tokens is encoded at one go, as any tokenizer would do it, but for
one cut: an assistant's content begins with a token of its own, because that is where generation begins.

Source: InternLM2 Technical Report (arXiv 2403.17297), section 4.4, and InternLM's `chat/chat_format.md`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from trainwright.runtime.data.vocabulary import Vocabulary

Role = Literal["system", "user", "assistant", "environment"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant", "environment")
TURN_START, TURN_END = "<|im_start|>", "<|im_end|>"
ACTION_START, ACTION_END = "<|action_start|>", "<|action_end|>"
PLUGIN: Final = "<|plugin|>"
INTERPRETER: Final = "<|interpreter|>"
FILE = "file"


@dataclass(frozen=True)
class Call:
    """What an assistant asks for: JSON with `name` and `parameters` of a plugin, a fenced block of the interpreter."""

    kind: Literal["<|plugin|>", "<|interpreter|>"]
    text: str


@dataclass(frozen=True)
class Message:
    """One turn. `name` is `<|plugin|>` or `<|interpreter|>` for system and environment, `file` for a user's upload.

    `trained` is only of an assistant's turn: whether it is to be learnt.
    """

    role: Role
    content: str
    name: str | None = None
    calls: tuple[Call, ...] = ()
    trained: bool = True


@dataclass(frozen=True)
class Rendered:
    """Tokens, and which of them are to be predicted: what the assistant says, its calls and `<|im_end|>`."""

    tokens: list[int]
    trained: list[bool]


def render(
    messages: Iterable[Message],
    vocabulary: Vocabulary,
    *,
    code_newline: bool,
    condition: str | None = None,
    generation_prompt: bool = False,
) -> Rendered:
    """The conversation from `<s>`; a `condition` is a system turn before all others.

    Each turn's tokens are those of `turn`, so prompt and answer may as well be rendered apart and put together.
    Raises DataError if the tokenizer has no chat tokens.
    """
    tokens, trained = [vocabulary.begin], [False]
    first = [] if condition is None else [Message("system", condition)]
    for message in (*first, *messages):
        rendered = turn(message, vocabulary, code_newline=code_newline)
        tokens += rendered.tokens
        trained += rendered.trained
    if generation_prompt:
        opening = generation_prompt_tokens(vocabulary)
        tokens += opening
        trained += [False] * len(opening)
    return Rendered(tokens, trained)


def turn(message: Message, vocabulary: Vocabulary, *, code_newline: bool) -> Rendered:
    """One turn with the newline after its `<|im_end|>`, without `<s>`."""
    newline = vocabulary.encode("\n")
    if message.role != "assistant":
        parts = [*_header(message, vocabulary), *_body(message, vocabulary, code_newline)]
        tokens = _encode(parts, vocabulary) + newline
        return Rendered(tokens, [False] * len(tokens))
    header = generation_prompt_tokens(vocabulary)
    body = answer(message, vocabulary, code_newline=code_newline)
    trained = [False] * len(header) + [message.trained] * len(body) + [False] * len(newline)
    return Rendered(header + body + newline, trained)


def answer(message: Message, vocabulary: Vocabulary, *, code_newline: bool) -> list[int]:
    """What an assistant's turn adds to the generation prompt: content and calls, and `<|im_end|>` as the last."""
    return _encode(_body(message, vocabulary, code_newline), vocabulary)


def generation_prompt_tokens(vocabulary: Vocabulary) -> list[int]:
    """`<|im_start|>assistant` and a newline."""
    return _encode(_header(Message("assistant", ""), vocabulary), vocabulary)


_Part = int | str  # a special token's id, or text


def _header(message: Message, vocabulary: Vocabulary) -> list[_Part]:
    start = vocabulary.special(TURN_START)
    if message.name is None:
        return [start, f"{message.role}\n"]
    if message.name == FILE:
        return [start, f"{message.role} name={FILE}\n"]
    return [start, f"{message.role} name=", vocabulary.special(message.name), "\n"]


def _body(message: Message, vocabulary: Vocabulary, code_newline: bool) -> list[_Part]:
    parts: list[_Part] = [message.content]
    for call in message.calls:
        parts += [
            vocabulary.special(ACTION_START),
            vocabulary.special(call.kind),
            f"\n{call.text}",
            vocabulary.special(ACTION_END),
        ]
    if _ends_with_newline(message, code_newline):
        parts.append("\n")
    return [*parts, vocabulary.special(TURN_END)]


def _ends_with_newline(message: Message, code_newline: bool) -> bool:
    """InternLM's samples have a newline before `<|im_end|>` after a list of tools, after code and after its result."""
    if message.role == "system":
        return message.name == PLUGIN
    of_code = any(call.kind == INTERPRETER for call in message.calls)
    return code_newline and (of_code or (message.role == "environment" and message.name == INTERPRETER))


def _encode(parts: list[_Part], vocabulary: Vocabulary) -> list[int]:
    """Text that is not parted by a special token is encoded at one go."""
    tokens: list[int] = []
    text = ""
    for part in parts:
        if isinstance(part, str):
            text += part
            continue
        tokens += vocabulary.encode(text)
        tokens.append(part)
        text = ""
    return tokens + vocabulary.encode(text)
