"""The entropy of a model's distribution at every position, beside the log-probability of its label.

It is the true one, -sum p log p over the vocabulary, and not the mean of -log p of what was drawn: answers come from
the nucleus of the distribution alone, whose tokens are the likelier ones. The head runs once more for it, over the
counted positions in pieces, so that the fused loss, which keeps no logits, gives it as well.

B: rows of a micro-batch, S: positions of this context rank, H: hidden size, N: counted positions; V: vocabulary entries
of this tensor rank.
"""

from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.tensor_parallel.mappings import gather_from_sequence_parallel_region
from torch import Tensor, distributed

from trainwright.runtime.align.ppo.rows import FiguresOf, Rows
from trainwright.runtime.generate.decode import unwrapped

_PIECE = 256  # positions whose logits are held at once


def read_log_probs_and_entropy(chunk: Any, rows: Rows) -> tuple[Tensor, FiguresOf]:
    """log p of every label, and the entropy in nats of the distribution that it was to be drawn from."""
    decoder = unwrapped(chunk)
    hidden: list[Tensor] = []
    hook = decoder.decoder.register_forward_hook(lambda _module, _inputs, output: hidden.append(output))
    try:
        output = chunk(rows.tokens_BS, None, rows.edges_BE, labels=rows.labels_BS)
    finally:
        hook.remove()

    def figures_of(loss_BS: Tensor, counted_BS: Tensor) -> Tensor:
        hidden_SBH = hidden[0]
        if decoder.config.sequence_parallel:
            hidden_SBH = gather_from_sequence_parallel_region(hidden_SBH, group=decoder.pg_collection.tp)
        entropy_N = _entropy(decoder, hidden_SBH.transpose(0, 1)[counted_BS])
        return torch.stack((-loss_BS[counted_BS], entropy_N))

    return output, figures_of


def _entropy(decoder: Any, hidden_NH: Tensor) -> Tensor:
    """log Z - sum p x of the logits x, relative to the largest, in fp32."""
    tied = decoder.share_embeddings_and_output_weights
    weight_VH = decoder.shared_embedding_or_output_weight() if tied else decoder.output_layer.weight
    group = parallel_state.get_tensor_model_parallel_group()
    entropy_N = torch.empty(len(hidden_NH), dtype=torch.float32, device=hidden_NH.device)
    for at in range(0, len(hidden_NH), _PIECE):
        logits_NV = (hidden_NH[at : at + _PIECE] @ weight_VH.t()).float()
        largest_N = logits_NV.amax(1)
        _over(largest_N, group, distributed.ReduceOp.MAX)
        logits_NV -= largest_N[:, None]
        odds_NV = logits_NV.exp()
        sums_2N = torch.stack((odds_NV.sum(1), (odds_NV * logits_NV).sum(1)))
        _over(sums_2N, group, distributed.ReduceOp.SUM)
        entropy_N[at : at + _PIECE] = sums_2N[0].log() - sums_2N[1] / sums_2N[0]
    return entropy_N


def _over(values: Tensor, group: distributed.ProcessGroup, operation: Any) -> None:
    if group.size() > 1:
        distributed.all_reduce(values, op=operation, group=group)
