"""The model's forward pass for decoding: its own parameters and kernels, without Megatron-core's layers around them.

What training does for the backward pass, for micro-batches and for sequence parallelism has no use here, and with one
token a row it would take most of the time. Tensor ranks hold their heads, features and vocabulary as in training and
sum or gather after them; sequences are not split, with sequence parallelism neither. Pipeline stages hand hidden states
on, once around the ring for each virtual stage.

N: tokens, of any rows; R: rows; G: key and value heads of this rank, K: query heads that share one, D: head size; H:
hidden size; T: positions in the cache; V: vocabulary.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from megatron.core import parallel_state
from torch import Tensor, distributed
from torch.nn import functional as F

from trainwright.kernels import fused, rope
from trainwright.runtime.generate.cache import KeyValueCache

# (cache of the chunk, layer in it, its core attention, q_NGKD, k_NGD, v_NGD) -> the context, [N, G, K, D]
_Attend = Callable[[KeyValueCache, int, Any, Tensor, Tensor, Tensor], Tensor]

_ROUND = 16  # positions are read in multiples of it: GPU kernels want their masks aligned


def unwrapped(chunk: Any) -> Any:
    """The GPTModel inside Megatron's wrappers."""
    while hasattr(chunk, "module"):
        chunk = chunk.module
    return chunk


def cache_row_bytes(chunks: Sequence[Any], positions: int) -> int:
    """Bytes of the cache on this rank for one row of `positions`."""
    return sum(_layer_bytes(layer, positions) for chunk in chunks for layer in unwrapped(chunk).decoder.layers)


def _layer_bytes(layer: Any, positions: int) -> int:
    attention = layer.self_attention
    width: int = attention.num_query_groups_per_partition * attention.hidden_size_per_attention_head
    element_bytes: int = attention.linear_qkv.weight.element_size()
    return 2 * width * _padded(positions) * element_bytes


def _padded(positions: int) -> int:
    return -(-positions // _ROUND) * _ROUND


class Decoder:
    """Rows that are read and continued. The active ones are rows 0, 1, ... of the cache, whatever their lengths.

    Every rank of the model group does the same calls; logits are given on the last pipeline stage, None elsewhere.
    """

    def __init__(self, chunks: Sequence[Any], *, rows: int, positions: int) -> None:
        self.chunks = [unwrapped(chunk) for chunk in chunks]
        self.positions = _padded(positions)
        self.tensor = parallel_state.get_tensor_model_parallel_group()
        self.pipeline = parallel_state.get_pipeline_model_parallel_group()
        parameter = next(self.chunks[0].parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        self.caches = [self._cache(chunk, rows) for chunk in self.chunks]

    def _cache(self, chunk: Any, rows: int) -> KeyValueCache:
        attention = chunk.decoder.layers[0].self_attention if len(chunk.decoder.layers) else None
        return KeyValueCache(
            layers=len(chunk.decoder.layers),
            rows=rows,
            heads=attention.num_query_groups_per_partition if attention else 0,
            positions=self.positions,
            size=attention.hidden_size_per_attention_head if attention else 0,
            dtype=self.dtype,
            device=self.device,
        )

    @torch.no_grad()
    def read(self, prompts: Sequence[Sequence[int]], first_row: int) -> Tensor | None:
        """The rows from `first_row` on have read these prompts; logits_RV after the last token of each.

        The prompts are one packed sequence of documents, as in training: none is padded, none sees another.
        """
        lengths = [len(prompt) for prompt in prompts]
        token_N = torch.tensor([token for prompt in prompts for token in prompt], dtype=torch.long, device=self.device)
        row_N = torch.repeat_interleave(torch.arange(len(prompts)), torch.tensor(lengths)) + first_row
        position_N = torch.cat([torch.arange(length) for length in lengths])
        edges = torch.tensor([0, *lengths]).cumsum(0)
        edges_1E = edges[None].int() if len(prompts) > 1 else None
        row_N, position_N = row_N.to(self.device), position_N.to(self.device)

        def attend(cache: KeyValueCache, layer: int, core: Any, q_NGKD: Tensor, k_NGD: Tensor, v_NGD: Tensor) -> Tensor:
            cache.write(layer, row_N, position_N, k_NGD, v_NGD)
            q_N1HD = q_NGKD.flatten(1, 2)[:, None]
            context: Tensor = core.choice.attend(q_N1HD, k_NGD[:, None], v_NGD[:, None], edges_1E, None)
            return context

        return self._forward(token_N, position_N, attend, (edges[1:] - 1).to(self.device))

    @torch.no_grad()
    def advance(self, token_R: Tensor, position_R: Tensor) -> Tensor | None:
        """The first rows have read one token more, each at its own position; logits_RV after them."""
        rows = len(token_R)
        reach = _padded(int(position_R.max()) + 1)
        token_R, position_R = token_R.to(self.device), position_R.to(self.device)
        row_R = torch.arange(rows, device=self.device)
        unseen_R11T = (torch.arange(reach, device=self.device) > position_R[:, None])[:, None, None]
        mask_R11T = torch.zeros_like(unseen_R11T, dtype=self.dtype).masked_fill_(unseen_R11T, float("-inf"))

        def attend(cache: KeyValueCache, layer: int, core: Any, q_RGKD: Tensor, k_RGD: Tensor, v_RGD: Tensor) -> Tensor:
            cache.write(layer, row_R, position_R, k_RGD, v_RGD)
            # The query heads of a key head take the place of queries, so that no key is copied for them.
            return F.scaled_dot_product_attention(q_RGKD, *cache.read(layer, rows, reach), attn_mask=mask_R11T)

        return self._forward(token_R, position_R, attend, None)

    def move(self, source: int, target: int, positions: int) -> None:
        """The row `target` goes on where the row `source` is, which has read `positions` tokens."""
        for cache in self.caches:
            cache.move(source, target, positions)

    def _forward(self, token_N: Tensor, position_N: Tensor, attend: _Attend, wanted_R: Tensor | None) -> Tensor | None:
        """Logits of the tokens at `wanted_R`, of all if None."""
        for chunk, cache in zip(self.chunks, self.caches, strict=True):
            hidden_NH = self._embed(chunk, token_N) if chunk.pre_process else self._receive(chunk, len(token_N))
            turn: tuple[Tensor, Tensor] | None = None
            for number, layer in enumerate(chunk.decoder.layers):
                turn = turn or self._angles(layer.self_attention, position_N)
                hidden_NH = self._layer(layer, number, cache, hidden_NH, turn, attend)
            if not chunk.post_process:
                self._send(hidden_NH)
                continue
            return self._logits(chunk, hidden_NH if wanted_R is None else hidden_NH[wanted_R])
        return None

    def _embed(self, chunk: Any, token_N: Tensor) -> Tensor:
        embedding = chunk.embedding.word_embeddings
        if self.tensor.size() == 1:
            return F.embedding(token_N, embedding.weight)
        local_N = token_N - embedding.vocab_start_index
        mine_N1 = ((local_N >= 0) & (local_N < len(embedding.weight)))[:, None]
        hidden_NH = F.embedding(local_N.clamp(0, len(embedding.weight) - 1), embedding.weight) * mine_N1
        return self._summed(hidden_NH)

    def _angles(self, attention: Any, position_N: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin of each token's position, [N, 1, 1, D/2]."""
        reach = 1 << (self.positions - 1).bit_length()  # few tables for many lengths
        size, base = attention.hidden_size_per_attention_head, attention.core_attention.rope_base
        cos, sin = rope.tables(reach, size, base, self.dtype, self.device)
        return cos[position_N], sin[position_N]

    def _layer(
        self,
        layer: Any,
        number: int,
        cache: KeyValueCache,
        hidden_NH: Tensor,
        turn: tuple[Tensor, Tensor],
        attend: _Attend,
    ) -> Tensor:
        attention, norm = layer.self_attention, layer.input_layernorm
        normal_NH = fused.rms_norm(hidden_NH, norm.weight, norm.eps)
        qkv = F.linear(normal_NH, attention.linear_qkv.weight, attention.linear_qkv.bias)
        # By key head: its query heads, the key, the value.
        parts = qkv.view(
            len(qkv), attention.num_query_groups_per_partition, -1, attention.hidden_size_per_attention_head
        )
        turned = fused.rotate(parts[:, :, :-1], *turn)
        context = attend(cache, number, attention.core_attention, turned[:, :, :-1], turned[:, :, -1], parts[:, :, -1])
        output_NH = self._summed(F.linear(context.reshape(len(qkv), -1), attention.linear_proj.weight))
        if attention.linear_proj.bias is not None:
            output_NH = output_NH + attention.linear_proj.bias
        norm = layer.pre_mlp_layernorm
        hidden_NH, normal_NH = fused.add_rms_norm(output_NH, hidden_NH, norm.weight, norm.eps)
        wide_NF = fused.swiglu(F.linear(normal_NH, layer.mlp.linear_fc1.weight))
        return hidden_NH + self._summed(F.linear(wide_NF, layer.mlp.linear_fc2.weight))

    def _logits(self, chunk: Any, hidden_NH: Tensor) -> Tensor:
        norm = chunk.decoder.final_layernorm
        tied = chunk.share_embeddings_and_output_weights
        weight_VH = chunk.shared_embedding_or_output_weight() if tied else chunk.output_layer.weight
        logits_NV = F.linear(fused.rms_norm(hidden_NH, norm.weight, norm.eps), weight_VH)
        ranks = self.tensor.size()
        if ranks == 1:
            return logits_NV
        parts = [torch.empty_like(logits_NV) for _ in range(ranks)]
        distributed.all_gather(parts, logits_NV, group=self.tensor)
        return torch.cat(parts, dim=-1)

    def _summed(self, x: Tensor) -> Tensor:
        """The sum over the tensor ranks, in place."""
        if self.tensor.size() > 1:
            distributed.all_reduce(x, group=self.tensor)
        return x

    def _receive(self, chunk: Any, tokens: int) -> Tensor:
        hidden_NH = torch.empty(tokens, chunk.config.hidden_size, dtype=self.dtype, device=self.device)
        before = (self.pipeline.rank() - 1) % self.pipeline.size()
        distributed.recv(hidden_NH, group=self.pipeline, group_src=before)
        return hidden_NH

    def _send(self, hidden_NH: Tensor) -> None:
        after = (self.pipeline.rank() + 1) % self.pipeline.size()
        distributed.send(hidden_NH, group=self.pipeline, group_dst=after)
