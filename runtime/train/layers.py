"""The layers of InternLM2's decoder inside Megatron-core's: our norm, activation, core attention, and what they keep.

S: positions of a sequence that this rank holds, B: sequences of a micro-batch, H: query heads of this rank, G: its key
and value heads, D: head size, E: edges of documents.

Document edges travel as Megatron's `attention_mask` argument: an int tensor `edges_BE` on the CPU (see
`trainwright.kernels.attention`), which every pipeline stage makes from its own copy of the batch and which
recomputation saves like any other input. RoPE runs over positions of the packed sequence and starts anew for no
document: it turns query and key by an angle each, so their product depends on the distance alone, and attention never
crosses documents. It lives inside the core attention, so that selective recomputation recomputes it too.

Context-parallel ranks hold the zig-zag slices of `trainwright.kernels.context_parallel.zigzag`; edges are those of the
whole sequence on each, and RoPE runs over the true positions.
"""

from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.tensor_parallel import RowParallelLinear
from megatron.core.tensor_parallel.random import CheckpointWithoutOutput
from megatron.core.transformer import TransformerConfig
from megatron.core.transformer.attention import SelfAttention
from megatron.core.transformer.mlp import MLP
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_layer import TransformerLayer
from torch import Tensor, distributed, nn

from trainwright.kernels import fused, rope
from trainwright.kernels.attention import Wanted, choose
from trainwright.kernels.context_parallel import zigzag
from trainwright.kernels.context_parallel.attention import Exchange, context_attention
from trainwright.kernels.context_parallel.local import local_attention
from trainwright.runtime import host
from trainwright.spec.plan import Layout


class RmsNorm(nn.Module):
    """RMSNorm of InternLM2; with sequence parallelism its gradient is summed over the tensor ranks."""

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(hidden_size, dtype=config.params_dtype))
        self.weight.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """The normalised x; of x + residual the sum too, and first."""
        if residual is None:
            return fused.rms_norm(x, self.weight, self.eps)
        return fused.add_rms_norm(x, residual, self.weight, self.eps)


class Layer(TransformerLayer):  # type: ignore[misc]
    """TransformerLayer that adds the attention's output to its input, and normalises the sum, in one operator.

    Megatron's layer asks for the two apart: the second finds what the first has left. The MLP's output is not added so:
    the norm behind it is the next layer's, which recomputation and pipeline stages hand the sum alone.
    """

    def __init__(self, *parts: Any, **options: Any) -> None:
        super().__init__(*parts, **options)
        self._normal: Tensor | None = None
        if not self.recompute_pre_mlp_layernorm:  # which starts from the sum
            self.self_attn_bda = lambda training, fusion: self._add

    def _add(self, output_and_bias: tuple[Tensor, Tensor | None], residual: Tensor, dropout: float) -> Tensor:
        output, bias = output_and_bias
        total: Tensor
        total, self._normal = self.pre_mlp_layernorm(output if bias is None else output + bias, residual)
        return total

    def _forward_pre_mlp_layernorm(self, hidden_states: Tensor) -> Tensor:
        if self.recompute_pre_mlp_layernorm:
            again: Tensor = super()._forward_pre_mlp_layernorm(hidden_states)
            return again
        normal, self._normal = self._normal, None
        assert normal is not None, "the attention's output has not been added yet"
        return normal


class SwiGlu(MegatronModule):  # type: ignore[misc]
    """SwiGLU as a module of Megatron's: its MLP asks each of its parts for a sharded state."""

    def forward(self, x: Tensor) -> Tensor:
        return fused.swiglu(x)


class CoreAttention(nn.Module):
    """Rotates queries and keys, then attends inside documents."""

    def __init__(
        self,
        *,
        rope_base: float,
        attention: Wanted,
        layout: Layout,
        **megatron: Any,
    ) -> None:
        super().__init__()
        self.rope_base = rope_base
        config = megatron["config"]
        self.choice = choose(attention, config.params_dtype, config.kv_channels, host.device())
        self.context = parallel_state.get_context_parallel_group()
        self.exchange = _exchange(layout, self.context)
        self.local = local_attention(self.choice.name, config.params_dtype, host.device())

    def forward(
        self, q_SBHD: Tensor, k_SBGD: Tensor, v_SBGD: Tensor, edges_BE: Tensor | None, **megatron: Any
    ) -> Tensor:
        """The context of shape [S, B, H D]."""
        if self.context.size() > 1:
            return self._over_ranks(q_SBHD, k_SBGD, v_SBGD, edges_BE)
        length = len(q_SBHD)
        reach = 1 << (length - 1).bit_length()  # few tables for many lengths
        cos, sin = rope.tables(reach, q_SBHD.shape[-1], self.rope_base, q_SBHD.dtype, q_SBHD.device)
        q_SBHD, k_SBGD = (fused.rotate(x, cos[:length], sin[:length]) for x in (q_SBHD, k_SBGD))
        return self.choice.attend(q_SBHD, k_SBGD, v_SBGD, edges_BE, None).flatten(2)

    def _over_ranks(self, q_SBHD: Tensor, k_SBGD: Tensor, v_SBGD: Tensor, edges_BE: Tensor | None) -> Tensor:
        """As `forward`, where each context rank holds its slices of the sequence."""
        rank, ranks = self.context.rank(), self.context.size()
        length = len(q_SBHD) * ranks
        cos, sin = rope.tables(length, q_SBHD.shape[-1], self.rope_base, q_SBHD.dtype, q_SBHD.device)
        positions_S1 = rope.positions_of(zigzag.runs(length, rank, ranks), q_SBHD.device)
        q_SBHD, k_SBGD = (fused.rotate(x, cos, sin, positions_S1) for x in (q_SBHD, k_SBGD))
        return context_attention(q_SBHD, k_SBGD, v_SBGD, edges_BE, None, self.exchange, self.local).flatten(2)


def _exchange(layout: Layout, context: distributed.ProcessGroup) -> Exchange:
    """How the context ranks attend to each other's tokens."""
    by = layout.context_exchange
    if by == "all_to_all" or layout.context_heads == 1:
        return Exchange.of(by, context)
    heads, tokens = parallel_state.get_hierarchical_context_parallel_groups()
    return Exchange(heads, tokens, by)


class Attention(SelfAttention):  # type: ignore[misc]
    """SelfAttention that keeps no more than it must."""

    def get_query_key_value_tensors(self, *args: Any, **options: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values. They come as views of one product, and a kept view would keep it whole."""
        query, key, value = super().get_query_key_value_tensors(*args, **options)
        if self.checkpoint_core_attention:  # keeps all three
            query, key = query.contiguous(), key.contiguous()
        return query, key, value.contiguous()


class Mlp(MLP):  # type: ignore[misc]
    """MLP that can drop the activation's product after the forward pass, and make it again for the backward pass."""

    def __init__(self, *args: Any, recompute_activation: bool, **options: Any) -> None:
        super().__init__(*args, **options)
        self.recompute_activation = recompute_activation

    def forward(self, hidden_states: Tensor, **options: Any) -> tuple[Tensor, Tensor | None]:
        if not (self.recompute_activation and self.training):
            output, bias = super().forward(hidden_states, **options)
            return output, bias
        wide, _ = self.linear_fc1(hidden_states)
        dropped = CheckpointWithoutOutput()
        output, bias = self.linear_fc2(dropped.checkpoint(self.activation_func, wide))
        dropped.discard_output_and_register_recompute(output)
        return output, bias


class RowLinear(RowParallelLinear):  # type: ignore[misc]
    """RowParallelLinear that knows its group: Megatron's own hands None to its matrix product, which warns of it."""

    def _forward_impl(self, input: Tensor, weight: Tensor, **options: Any) -> Tensor:
        product: Tensor = super()._forward_impl(input, weight, **{**options, "tp_group": self.tp_group})
        return product


class BiasedRowLinear(RowLinear):
    """The attention's output projection of InternLM-7B: the only row-parallel layer with a bias."""

    def __init__(self, *sizes: int, **options: Any) -> None:
        super().__init__(*sizes, **{**options, "bias": True})
