"""Continuations of many prompts at once, in any layout, with a key-value cache.

Rows are active from the moment their prompt is read to the end of their answer; then a waiting prompt takes their place
in the cache. So rows of different lengths stand side by side, each at its own position, and a row's result depends on
the others by rounding at most: its draws depend on its seed and the token's number alone.

Shape suffixes: P prompts, M new tokens of each, A active rows, V vocabulary.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from megatron.core import parallel_state
from numpy.typing import NDArray
from torch import Tensor, distributed

from trainwright.runtime.generate.decode import Decoder, cache_row_bytes
from trainwright.runtime.generate.sampling import Sampling, draw, log_probs, uniforms
from trainwright.runtime.generate.share import shared_out

OnToken = Callable[[int, int], None]  # (prompt, token)

_READ_TOKENS = 8192  # of prompts, at once: bounds the hidden states of a pass, not the cache


@dataclass(frozen=True)
class Generated:
    """An answer.

    `log_probs` are those of the drawn tokens under softmax(logits), at temperature 1, over all entries of the output
    layer and not only the nucleus, in fp32: what a full forward pass over prompt and answer gives.
    """

    tokens: list[int]  # with the stop token, if it came to one
    log_probs: list[float]
    stopped: bool  # by a stop token, not by `max_tokens`

    @property
    def without_stop(self) -> list[int]:
        """The tokens without the stop token."""
        return self.tokens[:-1] if self.stopped else self.tokens


def generate(
    chunks: Sequence[Any],
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    seeds: Sequence[int],
    stop_tokens: frozenset[int],
    vocabulary: int,
    cache_bytes: int | None = None,
    on_token: OnToken | None = None,
) -> list[Generated]:
    """What follows every prompt: at most `max_tokens`, up to the first stop token.

    `chunks` is this rank's part of the model, wrapped for training or not. Every rank of a model group (tensor,
    pipeline and context ranks of one data rank) calls it with the same and gets the same; context ranks share the
    prompts out. `seeds[row]` alone decides the draws of a row. Tokens from `vocabulary` on have no text and are never
    drawn. No more rows are active together than `cache_bytes` hold on each rank, but always one; None: all.
    `on_token` is told of every token but a stop token, on the ranks that decode its row, as soon as it is drawn.
    Raises ValueError for an empty prompt, FloatingPointError for logits that are not finite.
    """
    if not all(len(prompt) for prompt in prompts):
        raise ValueError("a prompt needs at least one token")
    if sampling.max_tokens == 0:
        return [Generated([], [], False) for _ in prompts]

    def some(numbers: Sequence[int]) -> list[Generated]:
        if not numbers:
            return []
        told = None if on_token is None else lambda row, token: on_token(numbers[row], token)
        own = [prompts[number] for number in numbers]
        positions = max(len(prompt) for prompt in own) + sampling.max_tokens
        rows = len(own) if cache_bytes is None else min(len(own), _rows_within(chunks, positions, cache_bytes))
        decoder = Decoder(chunks, rows=rows, positions=positions)
        run = _Run(decoder, rows, own, sampling, [seeds[number] for number in numbers], stop_tokens, vocabulary, told)
        return run.to_the_end()

    return shared_out(len(prompts), some, parallel_state.get_context_parallel_group())


def _rows_within(chunks: Sequence[Any], positions: int, cache_bytes: int) -> int:
    """Rows whose cache fits on every rank of the model group; at least one."""
    group = parallel_state.get_model_parallel_group()
    row_bytes = torch.tensor(cache_row_bytes(chunks, positions), device=next(chunks[0].parameters()).device)
    if group.size() > 1:
        distributed.all_reduce(row_bytes, op=distributed.ReduceOp.MAX, group=group)
    return max(1, cache_bytes // max(1, int(row_bytes)))


class _Run:
    """The answers as far as they have come, the same on every rank of a model group."""

    def __init__(
        self,
        decoder: Decoder,
        rows: int,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        seeds: Sequence[int],
        stop_tokens: frozenset[int],
        vocabulary: int,
        on_token: OnToken | None,
    ) -> None:
        self.decoder, self.rows, self.prompts = decoder, rows, prompts
        self.sampling, self.vocabulary, self.on_token = sampling, vocabulary, on_token
        self.stops = np.array(sorted(stop_tokens), dtype=np.int64)
        self.uniform_PM = uniforms(seeds, sampling.max_tokens)
        self.tokens_PM = np.zeros(self.uniform_PM.shape, dtype=np.int64)
        self.log_probs_PM = np.zeros(self.uniform_PM.shape, dtype=np.float32)
        self.length_P = np.array([len(prompt) for prompt in prompts])
        self.count_P = np.zeros(len(prompts), dtype=np.int64)
        self.stopped_P = np.zeros(len(prompts), dtype=np.bool_)
        self.active_A = np.empty(0, dtype=np.int64)  # the prompt of each row of the cache
        self.group = parallel_state.get_model_parallel_group()
        # The first tensor rank of the last stage draws for all: no two devices need to round alike.
        self.drawer = self.group.size() - decoder.tensor.size()

    def to_the_end(self) -> list[Generated]:
        waiting = deque(range(len(self.prompts)))
        while waiting or len(self.active_A):
            free = self.rows - len(self.active_A)
            # Prompts are read several at once: one alone would take a pass for itself.
            if waiting and (free == self.rows or free > self.rows // 8):
                self._read(waiting, free)
            else:
                self._advance()
        results = zip(self.tokens_PM, self.log_probs_PM, self.count_P, self.stopped_P, strict=True)
        return [
            Generated(tokens[:count].tolist(), values[:count].tolist(), bool(stopped))
            for tokens, values, count, stopped in results
        ]

    def _read(self, waiting: deque[int], free: int) -> None:
        """Some waiting prompts are active and have their first token."""
        fresh = [waiting.popleft()]
        read = self.length_P[fresh[0]]
        while waiting and len(fresh) < free and read + self.length_P[waiting[0]] <= _READ_TOKENS:
            read += self.length_P[waiting[0]]
            fresh.append(waiting.popleft())
        first = len(self.active_A)
        logits_AV = self.decoder.read([self.prompts[prompt] for prompt in fresh], first)
        self.active_A = np.append(self.active_A, fresh)
        self._append(logits_AV, first)

    def _advance(self) -> None:
        """Every active row has one token more."""
        last_A = self.count_P[self.active_A] - 1
        token_A = self.tokens_PM[self.active_A, last_A]
        position_A = self.length_P[self.active_A] + last_A
        self._append(self.decoder.advance(torch.from_numpy(token_A), torch.from_numpy(position_A)), 0)

    def _append(self, logits_AV: Tensor | None, first: int) -> None:
        """The rows from `first` on have the token that follows; those that end make place."""
        prompt_A = self.active_A[first:]
        place_A = self.count_P[prompt_A]
        token_A, log_prob_A = self._drawn(logits_AV, self.uniform_PM[prompt_A, place_A])
        self.tokens_PM[prompt_A, place_A] = token_A
        self.log_probs_PM[prompt_A, place_A] = log_prob_A
        self.count_P[prompt_A] += 1
        stopped_A = self.stopped_P[prompt_A] = np.isin(token_A, self.stops)
        if self.on_token is not None:
            for prompt, token in zip(prompt_A[~stopped_A].tolist(), token_A[~stopped_A].tolist(), strict=True):
                self.on_token(prompt, token)
        ended_A = stopped_A | (self.count_P[prompt_A] == self.sampling.max_tokens)
        for row in (first + np.flatnonzero(ended_A))[::-1].tolist():  # from the last: it never moves an ended one
            self._remove(row)

    def _drawn(
        self, logits_AV: Tensor | None, uniform_A: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """A token of each row and its log-probability."""
        drawn_2A = torch.zeros(2, len(uniform_A), dtype=torch.float64, device=self.decoder.device)
        if self.group.rank() == self.drawer:
            assert logits_AV is not None, "the last stage has logits"
            if not logits_AV.sum(dtype=torch.float32).isfinite():
                raise FloatingPointError("the model gives logits that are not finite")
            uniforms_A = torch.from_numpy(uniform_A).to(self.decoder.device)
            token_A = draw(logits_AV[:, : self.vocabulary], self.sampling, uniforms_A)
            drawn_2A[0], drawn_2A[1] = token_A, log_probs(logits_AV, token_A)
        if self.group.size() > 1:
            distributed.broadcast(drawn_2A, group=self.group, group_src=self.drawer)
        token_A, log_prob_A = drawn_2A.cpu().numpy()
        return token_A.astype(np.int64), log_prob_A.astype(np.float32)

    def _remove(self, row: int) -> None:
        """The row is not active any more, and the last one stands in its place."""
        last = len(self.active_A) - 1
        if row != last:
            moved = self.active_A[row] = self.active_A[last]
            # All that it has read: its last token is read by the next step.
            self.decoder.move(last, row, int(self.length_P[moved] + self.count_P[moved]) - 1)
        self.active_A = self.active_A[:-1]
