"""One decoder's tensors under three families of names: Megatron-core's, Hugging Face Llama's, InternLM2's.

A dialect is a list of `Entry`, one per Megatron-core tensor, each with the names that tensor has elsewhere and how it
falls into them; `translate` and `restore` walk the list lazily, so that a big model is converted tensor by tensor.
Values are never changed: there and back is bit for bit the same.

  Megatron-core                     Llama                          InternLM2
  self_attention.linear_qkv         self_attn.{q,k,v}_proj         attention.wqkv (the very same rows)
  mlp.linear_fc1 (gate, then up)    mlp.{gate,up}_proj             feed_forward.{w1,w3}
  mlp.linear_fc2                    mlp.down_proj                  feed_forward.w2

The rows of `linear_qkv` are groups, one per key head: the queries that share it, the key, the value, each of
`head_size` rows. RoPE is of the rotate-half kind in all three. Sources: InternLM2 technical report, section 2.2;
InternLM's `tools/convert2llama.py`.

Shape suffixes: R rows of a projection, G groups (key heads), S slots of a group, D head size, X the rest: hidden size
for a weight, nothing for a bias.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from trainwright.spec.plan import ModelPlan

Split = Callable[[Tensor], Sequence[Tensor]]
Fuse = Callable[[Sequence[Tensor]], Tensor]


def _alone(tensor: Tensor) -> Sequence[Tensor]:
    return [tensor]


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(parts))


def _only(parts: Sequence[Tensor]) -> Tensor:
    (tensor,) = parts
    return tensor


def _halves(tensor: Tensor) -> Sequence[Tensor]:
    return tensor.chunk(2)


@dataclass(frozen=True)
class Entry:
    """`split` takes the Megatron-core tensor `ours` apart into the tensors named `theirs`; `fuse` undoes it."""

    ours: str
    theirs: tuple[str, ...]
    split: Split = _alone
    fuse: Fuse = _only


def translate(tensors: Mapping[str, Tensor], dialect: Sequence[Entry]) -> Iterator[tuple[str, Tensor]]:
    """Every Megatron-core tensor under the names of the dialect. KeyError names one that is missing."""
    for entry in dialect:
        yield from zip(entry.theirs, entry.split(tensors[entry.ours]), strict=True)


def restore(tensors: Mapping[str, Tensor], dialect: Sequence[Entry]) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of the dialect under Megatron-core's names. KeyError names one that is missing."""
    for entry in dialect:
        yield entry.ours, entry.fuse([tensors[name] for name in entry.theirs])


def llama(model: ModelPlan, *, scores: bool = False) -> list[Entry]:
    """The dialect of Hugging Face's `LlamaForCausalLM`; if it gives scores, of `LlamaForSequenceClassification`."""
    split, fuse = partial(split_qkv, model=model), partial(fuse_qkv, model=model)
    kinds = ("weight", "bias") if model.attention_bias else ("weight",)
    entries = [Entry("embedding.word_embeddings.weight", ("model.embed_tokens.weight",))]
    for index in range(model.layers):
        ours, theirs = f"decoder.layers.{index}", f"model.layers.{index}"
        entries.append(Entry(f"{ours}.input_layernorm.weight", (f"{theirs}.input_layernorm.weight",)))
        for kind in kinds:
            names = tuple(f"{theirs}.self_attn.{letter}_proj.{kind}" for letter in "qkv")
            entries.append(Entry(f"{ours}.self_attention.linear_qkv.{kind}", names, split, fuse))
            entries.append(Entry(f"{ours}.self_attention.linear_proj.{kind}", (f"{theirs}.self_attn.o_proj.{kind}",)))
        gate_up = (f"{theirs}.mlp.gate_proj.weight", f"{theirs}.mlp.up_proj.weight")
        entries += [
            Entry(f"{ours}.pre_mlp_layernorm.weight", (f"{theirs}.post_attention_layernorm.weight",)),
            Entry(f"{ours}.mlp.linear_fc1.weight", gate_up, _halves, _joined),
            Entry(f"{ours}.mlp.linear_fc2.weight", (f"{theirs}.mlp.down_proj.weight",)),
        ]
    entries.append(Entry("decoder.final_layernorm.weight", ("model.norm.weight",)))
    if scores or not model.tie_embeddings:
        entries.append(Entry("output_layer.weight", ("score.weight" if scores else "lm_head.weight",)))
    return entries


def internlm2(model: ModelPlan, *, scores: bool = False) -> list[Entry]:
    """The dialect of InternLM2's own checkpoints in the Hugging Face format: w1 is the gate, w3 up, w2 down.

    A model that gives scores has the head of `InternLM2ForRewardModel` (XTuner, `modeling_internlm2_reward`).
    """
    kinds = ("weight", "bias") if model.attention_bias else ("weight",)
    entries = [Entry("embedding.word_embeddings.weight", ("model.tok_embeddings.weight",))]
    for index in range(model.layers):
        ours, theirs = f"decoder.layers.{index}", f"model.layers.{index}"
        entries.append(Entry(f"{ours}.input_layernorm.weight", (f"{theirs}.attention_norm.weight",)))
        for kind in kinds:
            entries += [
                Entry(f"{ours}.self_attention.linear_qkv.{kind}", (f"{theirs}.attention.wqkv.{kind}",)),
                Entry(f"{ours}.self_attention.linear_proj.{kind}", (f"{theirs}.attention.wo.{kind}",)),
            ]
        gate_up = (f"{theirs}.feed_forward.w1.weight", f"{theirs}.feed_forward.w3.weight")
        entries += [
            Entry(f"{ours}.pre_mlp_layernorm.weight", (f"{theirs}.ffn_norm.weight",)),
            Entry(f"{ours}.mlp.linear_fc1.weight", gate_up, _halves, _joined),
            Entry(f"{ours}.mlp.linear_fc2.weight", (f"{theirs}.feed_forward.w2.weight",)),
        ]
    entries.append(Entry("decoder.final_layernorm.weight", ("model.norm.weight",)))
    if scores or not model.tie_embeddings:
        entries.append(Entry("output_layer.weight", ("v_head.weight" if scores else "output.weight",)))
    return entries


def split_qkv(qkv_RX: Tensor, model: ModelPlan) -> Sequence[Tensor]:
    """Queries, keys and values, each with its heads in order, out of the grouped rows."""
    grouped_GSDX = qkv_RX.reshape(model.kv_heads, -1, model.head_size, *qkv_RX.shape[1:])
    parts = torch.split(grouped_GSDX, [model.heads // model.kv_heads, 1, 1], dim=1)
    return [part_GSDX.flatten(0, 2) for part_GSDX in parts]


def fuse_qkv(parts: Sequence[Tensor], model: ModelPlan) -> Tensor:
    """The grouped rows out of queries, keys and values."""
    grouped = [part_RX.reshape(model.kv_heads, -1, model.head_size, *part_RX.shape[1:]) for part_RX in parts]
    return torch.cat(grouped, dim=1).flatten(0, 2)
