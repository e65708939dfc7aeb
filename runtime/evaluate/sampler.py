"""A trained model that continues text."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron.core.models.gpt import GPTModel
from sentencepiece import SentencePieceProcessor

from trainwright.runtime.evaluate.generate import Sampling, generate
from trainwright.runtime.evaluate.load import load_model
from trainwright.spec.plan import PhaseStage, Plan

OnText = Callable[[str], None]

# Prompts decoded together: the cache of a 7B model takes 0.5 GiB for one of them at 4,096 tokens.
_ROWS = 16


@dataclass(frozen=True)
class Sampler:
    """`model` in evaluation mode and the tokenizer it was trained with."""

    model: GPTModel
    tokenizer: SentencePieceProcessor

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
        (text,) = self.complete_all([prompt], sampling, seed, on_text)
        return text

    def complete_all(
        self, prompts: Sequence[str], sampling: Sampling, seed: int, on_text: OnText | None = None
    ) -> list[str]:
        """What follows each prompt. A prompt's continuation depends on the prompt and the seed alone.

        `on_text` may only be given with a single prompt.
        """
        if on_text is not None and len(prompts) != 1:
            raise ValueError("text can be followed as it is written for one prompt only")
        texts: list[str] = []
        for first in range(0, len(prompts), _ROWS):
            rows = prompts[first : first + _ROWS]
            encoded = [[self.tokenizer.bos_id(), *self.tokenizer.encode(prompt)] for prompt in rows]
            stream = TextStream(self.tokenizer, encoded[0], on_text) if on_text is not None else None
            new = generate(
                self.model,
                encoded,
                sampling,
                seeds=[prompt_seed(seed, prompt) for prompt in rows],
                stop_tokens=frozenset({self.tokenizer.eos_id()}),
                vocabulary=self.tokenizer.get_piece_size(),
                on_token=(lambda row, token: stream.feed(token)) if stream is not None else None,
            )
            if stream is not None:
                stream.close()
            texts += [continuation(self.tokenizer, prompt, tokens) for prompt, tokens in zip(encoded, new, strict=True)]
        return texts


def open_model(plan: Plan, stage: str, *, phase_folder: Path, tokenizer_folder: Path) -> Sampler:
    """The model of the newest checkpoint of the phase `stage`, ready to be sampled on this process.

    `phase_folder` and `tokenizer_folder` are result folders. Needs Megatron-core's parallel state to be initialised.
    Raises NoCheckpoint, or ValueError if `stage` is not a phase.
    """
    phase = plan.stage(stage)
    if not isinstance(phase, PhaseStage):
        raise ValueError(f"stage `{stage}` is not a training phase, so it has no model")
    return Sampler(load_model(phase, phase_folder).model, open_tokenizer(tokenizer_folder))


def open_tokenizer(folder: Path) -> SentencePieceProcessor:
    """The tokenizer in the result folder of a tokenizer stage."""
    return SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))


def prompt_seed(seed: int, prompt: str) -> int:
    """A seed of the prompt's own, so that its draws are the same in every batch."""
    digest = hashlib.blake2b(f"{seed}\n{prompt}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def continuation(tokenizer: SentencePieceProcessor, prompt: Sequence[int], tokens: Sequence[int]) -> str:
    """The text of `tokens` as it stands after the prompt (a first piece may need its neighbour to keep its space)."""
    before = tokenizer.decode(list(prompt))
    whole: str = tokenizer.decode([*prompt, *tokens])
    return whole[len(before) :]


class TextStream:
    """Tells text as soon as it is certain: the bytes of a character may come in several tokens."""

    def __init__(self, tokenizer: SentencePieceProcessor, prompt: Sequence[int], on_text: OnText) -> None:
        self.tokenizer, self.prompt, self.on_text = tokenizer, list(prompt), on_text
        self.tokens: list[int] = []
        self.told = 0

    def feed(self, token: int) -> None:
        self.tokens.append(token)
        text = continuation(self.tokenizer, self.prompt, self.tokens)
        if not (self.tokenizer.is_byte(token) and text.endswith("\N{REPLACEMENT CHARACTER}")):
            self._tell(text)

    def close(self) -> None:
        """All text has been told, characters that were never finished included."""
        self._tell(continuation(self.tokenizer, self.prompt, self.tokens))

    def _tell(self, text: str) -> None:
        if len(text) > self.told:
            self.on_text(text[self.told :])
            self.told = len(text)
