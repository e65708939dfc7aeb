"""Tensors keep their values, bit for bit, whatever names they travel under."""

from collections.abc import Callable

import pytest
import torch

from trainwright.runtime.export.names import Entry, fuse_qkv, internlm2, llama, restore, split_qkv, translate
from trainwright.spec.plan import ModelPlan


def model_plan(*, heads: int = 6, kv_heads: int = 2, bias: bool = False, tied: bool = False) -> ModelPlan:
    return ModelPlan(
        layers=2,
        hidden_size=24,
        heads=heads,
        kv_heads=kv_heads,
        head_size=4,
        ffn_size=32,
        vocab_size=40,
        norm_eps=1e-5,
        init_std=0.02,
        attention_bias=bias,
        tie_embeddings=tied,
        parameters=0,
    )


def megatron_tensors(model: ModelPlan) -> dict[str, torch.Tensor]:
    hidden, ffn, inner = model.hidden_size, model.ffn_size, model.heads * model.head_size
    fused = inner + 2 * model.kv_heads * model.head_size
    layer: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (hidden,),
        "self_attention.linear_qkv.weight": (fused, hidden),
        "self_attention.linear_proj.weight": (hidden, inner),
        "pre_mlp_layernorm.weight": (hidden,),
        "mlp.linear_fc1.weight": (2 * ffn, hidden),
        "mlp.linear_fc2.weight": (hidden, ffn),
    }
    if model.attention_bias:
        layer |= {"self_attention.linear_qkv.bias": (fused,), "self_attention.linear_proj.bias": (hidden,)}
    shapes = {f"decoder.layers.{i}.{name}": shape for i in range(model.layers) for name, shape in layer.items()}
    shapes |= {
        "embedding.word_embeddings.weight": (model.vocab_size, hidden),
        "decoder.final_layernorm.weight": (hidden,),
    }
    if not model.tie_embeddings:
        shapes["output_layer.weight"] = (model.vocab_size, hidden)
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@pytest.mark.parametrize("dialect", [llama, internlm2])
@pytest.mark.parametrize("kv_heads", [6, 2, 1])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_there_and_back_is_bit_for_bit_the_same(
    dialect: Callable[[ModelPlan], list[Entry]], kv_heads: int, bias: bool, tied: bool
) -> None:
    model = model_plan(kv_heads=kv_heads, bias=bias, tied=tied)
    tensors = megatron_tensors(model)
    back = dict(restore(dict(translate(tensors, dialect(model))), dialect(model)))
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)


def test_queries_of_a_group_stand_before_its_key_and_its_value() -> None:
    model = model_plan(heads=4, kv_heads=2)
    rows = torch.arange((4 + 2 * 2) * 4).unsqueeze(1)
    query, key, value = split_qkv(rows, model)
    # Group 0 is heads 0, 1, key 0, value 0; group 1 is heads 2, 3, key 1, value 1; four rows each.
    assert query.flatten().tolist() == [*range(8), *range(16, 24)]
    assert key.flatten().tolist() == [*range(8, 12), *range(24, 28)]
    assert value.flatten().tolist() == [*range(12, 16), *range(28, 32)]
    assert torch.equal(fuse_qkv([query, key, value], model), rows)


def test_internlm2_takes_the_fused_rows_as_they_stand_and_w1_is_the_gate() -> None:
    model = model_plan(bias=True)
    tensors = megatron_tensors(model)
    theirs = dict(translate(tensors, internlm2(model)))
    prefix = "decoder.layers.1."
    assert torch.equal(
        theirs["model.layers.1.attention.wqkv.weight"], tensors[prefix + "self_attention.linear_qkv.weight"]
    )
    assert torch.equal(theirs["model.layers.1.attention.wo.bias"], tensors[prefix + "self_attention.linear_proj.bias"])
    gate, up = tensors[prefix + "mlp.linear_fc1.weight"].chunk(2)
    assert torch.equal(theirs["model.layers.1.feed_forward.w1.weight"], gate)
    assert torch.equal(theirs["model.layers.1.feed_forward.w3.weight"], up)


def test_a_missing_tensor_is_named() -> None:
    model = model_plan()
    tensors = megatron_tensors(model)
    del tensors["decoder.final_layernorm.weight"]
    with pytest.raises(KeyError, match="final_layernorm"):
        dict(translate(tensors, llama(model)))
