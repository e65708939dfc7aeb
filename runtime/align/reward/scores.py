"""Scores of whole conversations by a model that gives scores: forward only, packed, under any layout.

A conversation's score does not depend on what else is asked, but for rounding: attention never crosses documents.
B: rows of a micro-batch, S: their positions, L: tokens of a conversation, N: conversations.
"""

from collections.abc import Sequence
from math import lcm
from typing import Any

import numpy as np
import torch
from megatron.core import parallel_state
from numpy.typing import NDArray
from torch import Tensor, distributed, nn

from trainwright.kernels.context_parallel import zigzag
from trainwright.runtime import host
from trainwright.runtime.align.data.pack import pack
from trainwright.runtime.align.data.rows import Tokens
from trainwright.runtime.align.reward.rows import Packed, packed
from trainwright.runtime.train.objective import Figures, LossOf
from trainwright.runtime.train.step import forward_pass


def score(chunks: Sequence[nn.Module], conversations: Sequence[Tokens], *, row_length: int) -> NDArray[np.float32]:
    """scores_N, read at each conversation's last token, which is the reward token. See `values`."""
    return np.array([values_L[-1] for values_L in values(chunks, conversations, row_length=row_length)], np.float32)


def values(
    chunks: Sequence[nn.Module], conversations: Sequence[Tokens], *, row_length: int
) -> list[NDArray[np.float32]]:
    """values_L of each conversation: the head's output at every token.

    Every rank of a data rank's model (tensor, context and pipeline ranks) calls it with the same conversations and is
    given the same; data ranks may ask different things. `chunks` are this rank's part of a model with the head
    "score". No conversation is longer than `row_length`, and no row; few conversations take shorter rows.
    """
    lengths = [len(tokens) for tokens in conversations]
    if not lengths:
        return []
    length = _row_length(sum(lengths), row_length)
    rows = pack(lengths, length, seed=0)
    # The interleaved schedule takes micro-batches in rounds of as many as there are pipeline stages.
    rounds = parallel_state.get_pipeline_model_parallel_world_size() if len(chunks) > 1 else 1
    empty: list[list[int]] = [[]] * (-len(rows) % rounds)
    batches = [packed([[conversations[number] for number in row]], length) for row in (*rows, *empty)]
    values_RS = _gathered(forward_pass(chunks, _forward, batches), len(batches), length)
    found: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(lengths)
    for row, values_S in zip(rows, values_RS, strict=False):
        at = 0
        for number in row:
            found[number] = values_S[at : at + lengths[number]]
            at += lengths[number]
    return found


def _row_length(tokens: int, most: int) -> int:
    """What all tokens need, at most `most`, such that context and sequence parallelism can cut it."""
    context = parallel_state.get_context_parallel_world_size()
    unit = lcm(2 * context, context * parallel_state.get_tensor_model_parallel_world_size())
    return -(-min(tokens, most) // unit) * unit


def _forward(chunk: Any, batch: Packed) -> tuple[Tensor, LossOf]:
    return chunk(batch.tokens_BS, None, batch.edges_BE), _kept


def _kept(scores_BS: Tensor) -> tuple[Tensor, Tensor, Figures]:
    return scores_BS.sum(), torch.zeros((), dtype=torch.int, device=scores_BS.device), {"figures": scores_BS}


def _gathered(results: Sequence[Figures], rows: int, length: int) -> NDArray[np.float32]:
    """values_RS of whole rows on every rank of the model, from the last pipeline stage's context ranks."""
    values_RS = torch.zeros(rows, length, dtype=torch.float32, device=host.device())
    context = parallel_state.get_context_parallel_world_size()
    if results:
        own_RS = torch.cat([result["figures"] for result in results])
        if context > 1:
            values_RS[:, zigzag.positions(length, parallel_state.get_context_parallel_rank(), context)] = own_RS
        else:
            values_RS[:] = own_RS
    # Sums with zeros: each position has its value on one rank alone, so nothing is rounded.
    if context > 1:
        distributed.all_reduce(values_RS, group=parallel_state.get_context_parallel_group())
    if parallel_state.get_pipeline_model_parallel_world_size() > 1:
        distributed.all_reduce(values_RS, group=parallel_state.get_pipeline_model_parallel_group())
    return np.asarray(values_RS.cpu().numpy())
