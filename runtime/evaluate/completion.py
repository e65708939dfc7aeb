"""A trained model that continues text."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from megatron.core.models.gpt import GPTModel

from trainwright.runtime.align.data.chat import TURN_END, Message
from trainwright.runtime.align.data.encode import encode_prompt
from trainwright.runtime.data.vocabulary import Vocabulary
from trainwright.runtime.generate.generate import generate
from trainwright.runtime.generate.sampling import Sampling

OnText = Callable[[str], None]

_CACHE_BYTES = 8 << 30  # of prompts decoded together: 16 of a 7B model's at 4,096 tokens


@dataclass(frozen=True)
class Sampler:
    """A model in evaluation mode and the vocabulary it was trained with.

    Of a chat model a prompt is what a user says, and what follows is its answer.
    """

    model: GPTModel
    vocabulary: Vocabulary
    chat: bool = False

    def complete(
        self,
        prompt: str,
        max_tokens: int,
        temperature: float,
        top_p: float,
        seed: int,
        on_text: OnText | None = None,
    ) -> str:
        """The text that follows the prompt; `on_text` is given it piece by piece as it is written."""
        sampling = Sampling(max_tokens=max_tokens, temperature=temperature, top_p=top_p)
        tokens = self._encode(prompt)
        stream = TextStream(self.vocabulary, tokens, on_text) if on_text is not None else None
        (new,) = self._continue([prompt], [tokens], sampling, seed, stream.feed if stream is not None else None)
        if stream is not None:
            stream.close()
        return continuation(self.vocabulary, tokens, new)

    def complete_all(self, prompts: Sequence[str], sampling: Sampling, seed: int) -> list[str]:
        """What follows each prompt: a function of the prompt and the seed, not of the other prompts."""
        tokens = [self._encode(prompt) for prompt in prompts]
        new = self._continue(prompts, tokens, sampling, seed, None)
        return [continuation(self.vocabulary, *pair) for pair in zip(tokens, new, strict=True)]

    def _encode(self, prompt: str) -> list[int]:
        if not self.chat:
            return [self.vocabulary.begin, *self.vocabulary.encode(prompt)]
        said = [Message("user", prompt)]
        # The newline variant says nothing of a user's turn.
        return [self.vocabulary.begin, *encode_prompt(said, self.vocabulary, code_newline=False)]

    def _stop_tokens(self) -> frozenset[int]:
        ends = (self.vocabulary.end, *((self.vocabulary.special(TURN_END),) if self.chat else ()))
        return frozenset(ends)

    def _continue(
        self,
        prompts: Sequence[str],
        tokens: Sequence[Sequence[int]],
        sampling: Sampling,
        seed: int,
        feed: Callable[[int], None] | None,
    ) -> list[list[int]]:
        answers = generate(
            [self.model],
            tokens,
            sampling,
            seeds=[prompt_seed(seed, prompt) for prompt in prompts],
            stop_tokens=self._stop_tokens(),
            vocabulary=self.vocabulary.size,
            cache_bytes=_CACHE_BYTES,
            on_token=None if feed is None else lambda _, token: feed(token),
        )
        return [answer.without_stop for answer in answers]


def prompt_seed(seed: int, prompt: str) -> int:
    """A seed of the prompt's own, so that its draws are the same in every batch."""
    digest = hashlib.blake2b(f"{seed}\n{prompt}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def continuation(vocabulary: Vocabulary, prompt: Sequence[int], tokens: Sequence[int]) -> str:
    """The text of `tokens` as it stands after the prompt (a first piece may need its neighbour to keep its space)."""
    before = vocabulary.decode(list(prompt))
    whole = vocabulary.decode([*prompt, *tokens])
    return whole[len(before) :]


class TextStream:
    """Tells text as soon as it is certain: the bytes of a character may come in several tokens."""

    def __init__(self, vocabulary: Vocabulary, prompt: Sequence[int], on_text: OnText) -> None:
        self.vocabulary, self.prompt, self.on_text = vocabulary, list(prompt), on_text
        self.tokens: list[int] = []
        self.told = 0

    def feed(self, token: int) -> None:
        self.tokens.append(token)
        text = continuation(self.vocabulary, self.prompt, self.tokens)
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):
            self._tell(text)

    def close(self) -> None:
        """All text has been told, characters that were never finished included."""
        self._tell(continuation(self.vocabulary, self.prompt, self.tokens))

    def _tell(self, text: str) -> None:
        if len(text) > self.told:
            self.on_text(text[self.told :])
            self.told = len(text)
