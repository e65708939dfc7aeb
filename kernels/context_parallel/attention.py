"""Causal attention over sequences that are cut over the ranks of process groups, by three exchanges and two combined.

| exchange     | what is sent               | elements sent by a rank, forward          | calls of local attention |
|--------------|----------------------------|-------------------------------------------|--------------------------|
| `gather`     | all keys and values to all | 2 (P - 1) S G D                           | 1                        |
| `ring`       | a block to the next rank   | 2 (P - 1) S G D, beside the computation   | P                        |
| `all_to_all` | heads for tokens (Ulysses) | 2 (P - 1) / P S (H + G) D                 | 1                        |
| combined     | heads inside, keys across  | both over their own ranks (InternEvo: 2D) | as across                |

S: tokens of this rank, B: rows, H: query heads, G: key and value heads, D: head size, E: edges of documents.
Tokens are cut as in `zigzag`; edges, as in `trainwright.kernels.attention`, are those of the whole sequence.
"""

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from torch.distributed import ProcessGroup

from trainwright.kernels.context_parallel.exchange import heads_for_tokens, tokens_for_heads
from trainwright.kernels.context_parallel.gathered import gathered_attention
from trainwright.kernels.context_parallel.local import Local
from trainwright.kernels.context_parallel.ring import ring_attention
from trainwright.kernels.context_parallel.zigzag import edges_of


@dataclass(frozen=True, eq=False)
class Exchange:
    """How context ranks attend to each other's tokens.

    `heads`: ranks that exchange heads for tokens, consecutive ones of all context ranks; `tokens`: ranks, one of each
    such group, that exchange keys and values, by `tokens_by`. One of the two may be None.
    """

    heads: ProcessGroup | None
    tokens: ProcessGroup | None
    tokens_by: Literal["gather", "ring"] = "gather"

    @classmethod
    def of(cls, name: Literal["gather", "ring", "all_to_all"], group: ProcessGroup) -> "Exchange":
        """One of the three plain ones over all context ranks."""
        if name == "all_to_all":
            return cls(heads=group, tokens=None)
        return cls(heads=None, tokens=group, tokens_by=name)


def context_attention(
    q_SBHD: Tensor,
    k_SBGD: Tensor,
    v_SBGD: Tensor,
    edges_BE: Tensor | None,
    scale: float | None,
    exchange: Exchange,
    local: Local,
) -> Tensor:
    """o_SBHD: softmax(scale q k^T) v inside each document; `scale` is 1/sqrt(D) if None. Differentiable.

    A collective of the exchange's groups, as is its gradient. Raises ValueError if heads cannot be shared out.
    """
    scale = q_SBHD.shape[-1] ** -0.5 if scale is None else scale
    if exchange.heads is not None:
        q, k, v = (heads_for_tokens(x, exchange.heads) for x in _shareable(q_SBHD, k_SBGD, v_SBGD, exchange.heads))
    else:
        q, k, v = q_SBHD, k_SBGD, v_SBGD
    ranks = 1 if exchange.tokens is None else exchange.tokens.size()
    edges = edges_of(edges_BE, q.shape[1], len(q) * ranks)
    if exchange.tokens is not None and exchange.tokens_by == "gather":
        o = gathered_attention(q, k, v, edges, scale, exchange.tokens, local)
    else:
        o = ring_attention(q, k, v, edges, scale, exchange.tokens, local)
    return o if exchange.heads is None else tokens_for_heads(o, exchange.heads)


def _shareable(q_SBHD: Tensor, k_SBGD: Tensor, v_SBGD: Tensor, group: ProcessGroup) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values whose heads the ranks can share: of keys too few for all, each is repeated."""
    heads, groups, ranks = q_SBHD.shape[2], k_SBGD.shape[2], group.size()
    if heads % ranks:
        raise ValueError(f"{heads} heads cannot be shared by {ranks} ranks")
    repeat = math.lcm(groups, ranks) // groups
    if repeat == 1:
        return q_SBHD, k_SBGD, v_SBGD
    return q_SBHD, k_SBGD.repeat_interleave(repeat, 2), v_SBGD.repeat_interleave(repeat, 2)
