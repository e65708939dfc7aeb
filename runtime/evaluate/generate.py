"""Continuations of several prompts at once, with Megatron-core's static key-value cache.

All rows of the cache advance together from position 0: the shortest prompt is read in one piece, then every step
appends one token to every row, and rows whose prompt is longer are fed their own prompt until it ends. So no row is
padded, no key is masked, and a row's result depends on the others by rounding at most.

Shape suffixes: B rows (prompts), S positions, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from megatron.core.inference.contexts import StaticInferenceContext
from megatron.core.models.gpt import GPTModel
from torch import Tensor

OnToken = Callable[[int, int], None]  # (row, token)


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn. Temperature 0 takes the likeliest one and looks at nothing else."""

    max_tokens: int
    temperature: float
    top_p: float


def generate(
    model: GPTModel,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    seeds: Sequence[int],
    stop_tokens: frozenset[int],
    vocabulary: int,
    on_token: OnToken | None = None,
) -> list[list[int]]:
    """The new tokens of every prompt: at most `max_tokens`, up to the first stop token, which is left out.

    `seeds[row]` alone decides the draws of a row, so that a continuation does not depend on its company. Tokens from
    `vocabulary` on have no text and are never drawn. Raises ValueError for an empty prompt.
    """
    if not all(prompts):
        raise ValueError("a prompt needs at least one token")
    device = next(model.parameters()).device
    total = max(len(prompt) for prompt in prompts) + sampling.max_tokens
    tokens_BS = torch.zeros(len(prompts), total, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        tokens_BS[row, : len(prompt)] = torch.tensor(prompt)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    decoder = CachedDecoder(model, rows=len(prompts), positions=total)
    results: list[list[int]] = [[] for _ in prompts]
    active = set(range(len(prompts))) if sampling.max_tokens else set()
    start, end = 0, min(len(prompt) for prompt in prompts)
    while active:
        logits_BV = decoder.advance(tokens_BS[:, start:end].to(device))[:, :vocabulary].float().cpu()
        for row in sorted(active):
            if end < len(prompts[row]):
                continue
            token = draw(logits_BV[row], sampling, generators[row])
            if token in stop_tokens:
                active.remove(row)
                continue
            results[row].append(token)
            tokens_BS[row, end] = token
            if on_token is not None:
                on_token(row, token)
            if len(results[row]) == sampling.max_tokens:
                active.remove(row)
        start, end = end, end + 1
    return results


class CachedDecoder:
    """A model that remembers the keys and values of all it has read."""

    def __init__(self, model: GPTModel, *, rows: int, positions: int) -> None:
        self.model = model
        self.context = StaticInferenceContext(rows, positions)

    def advance(self, tokens_BS: Tensor) -> Tensor:
        """The logits after the last of these tokens, [B, V]; they stand behind all that was read before.

        Several tokens may only be read first: later ones come one by one.
        """
        start = self.context.sequence_len_offset
        if start and tokens_BS.shape[1] != 1:
            raise ValueError("after the first piece tokens are read one at a time")
        positions_BS = torch.arange(start, start + tokens_BS.shape[1], device=tokens_BS.device).expand_as(tokens_BS)
        # no_grad and not inference_mode: Megatron-core caches its RoPE tables, which training would meet again.
        with torch.no_grad():
            logits_BSV = self.model(
                tokens_BS, positions_BS, None, inference_context=self.context, runtime_gather_output=True
            )
        self.context.increment_sequence_len_offset(tokens_BS.shape[1])
        self.context.enable_decode_mode()
        last_BV: Tensor = logits_BSV[:, -1]
        return last_BV


def draw(logits_V: Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """A token of the nucleus: the smallest set of the likeliest tokens whose probabilities reach `top_p`."""
    if sampling.temperature == 0:
        return int(logits_V.argmax())
    probabilities_V, order_V = (logits_V.double() / sampling.temperature).softmax(-1).sort(descending=True, stable=True)
    cumulative_V = probabilities_V.cumsum(-1)
    inside = int((cumulative_V - probabilities_V < sampling.top_p).sum().clamp(min=1))
    uniform = torch.rand((), generator=generator, dtype=torch.float64) * cumulative_V[inside - 1]
    place = int(torch.searchsorted(cumulative_V[:inside], uniform, right=True).clamp(max=inside - 1))
    return int(order_V[place])
