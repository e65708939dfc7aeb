"""Whole conversations packed into rows, and the scores read at their ends, under any layout.

B: rows of a micro-batch, S: their positions that this context rank holds, E: edges of documents, N: conversations.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from megatron.core import parallel_state
from megatron.core.tensor_parallel.mappings import reduce_from_tensor_model_parallel_region
from torch import Tensor

from trainwright.kernels.context_parallel import zigzag
from trainwright.runtime import host
from trainwright.runtime.align.data.rows import Tokens
from trainwright.runtime.train.language import document_edges, own_slice


@dataclass(frozen=True)
class Packed:
    """Rows of conversations, on the device but for the edges, which attention reads on the CPU.

    What a row has left over is a document of its own. `last_N` is where in `tokens_BS`, flattened, each conversation
    ends; `held_N` is false where that position is another context rank's.
    """

    tokens_BS: Tensor
    edges_BE: Tensor | None
    last_N: Tensor
    held_N: Tensor


def packed(rows: Sequence[Sequence[Tokens]], length: int) -> Packed:
    """The conversations one behind the other in rows of `length`; N counts them row by row."""
    tokens_BS = np.zeros((len(rows), length), dtype=np.int64)
    starts: list[list[int]] = []
    last: list[tuple[int, int]] = []
    for b, row in enumerate(rows):
        ends = np.cumsum([len(tokens) for tokens in row]).tolist()
        if row:
            tokens_BS[b, : ends[-1]] = np.concatenate(list(row))
        starts.append(ends)
        last += [(b, end - 1) for end in ends]
    places_S = _places_here(length)
    row_N, place_N = torch.tensor(last, dtype=torch.int64).reshape(-1, 2).unbind(1)
    here_N = places_S[place_N]
    device = host.device()
    own_BS = own_slice(torch.from_numpy(tokens_BS).to(device))
    return Packed(
        tokens_BS=own_BS,
        edges_BE=document_edges(starts, length),
        last_N=(row_N * own_BS.shape[1] + here_N.clamp(min=0)).to(device),
        held_N=(here_N >= 0).to(device),
    )


def scores_at_ends(scores_BS: Tensor, batch: Packed) -> Tensor:
    """scores_N on every context rank; the gradient of each goes to the rank that holds its position."""
    scores_N = torch.where(batch.held_N, scores_BS.flatten()[batch.last_N], 0.0)
    if parallel_state.get_context_parallel_world_size() <= 1:
        return scores_N
    # Forward the sum over the ranks, backward the gradient as it is: each rank makes the same loss of all scores.
    whole_N: Tensor = reduce_from_tensor_model_parallel_region(
        scores_N, group=parallel_state.get_context_parallel_group()
    )
    return whole_N


def _places_here(length: int) -> Tensor:
    """Of each position of a whole row, where this context rank holds it; -1 if it does not."""
    ranks = parallel_state.get_context_parallel_world_size()
    if ranks <= 1:
        return torch.arange(length)
    places = torch.full((length,), -1)
    own_S = zigzag.positions(length, parallel_state.get_context_parallel_rank(), ranks)
    places[own_S] = torch.arange(len(own_S))
    return places
