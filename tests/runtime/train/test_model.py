"""The model from the plan: its parameters, its initial weights, its documents, and what it refuses."""

import math
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from megatron.core.transformer.transformer_layer import TransformerLayer
from msgspec import structs

from trainwright.runtime.train import model, parallel
from trainwright.runtime.train.initial import named_parameters
from trainwright.runtime.train.metrics import model_flops_per_token
from trainwright.runtime.train.model import build_model
from trainwright.spec.plan import Layout, ModelPlan

MODEL = ModelPlan(
    layers=2, hidden_size=32, heads=4, kv_heads=2, head_size=8, ffn_size=48, vocab_size=64, norm_eps=1e-5,
    init_std=0.02, attention_bias=False, tie_embeddings=False, parameters=0,
)  # fmt: skip
LAYOUT = Layout(
    tensor=1, pipeline=1, virtual_pipeline=1, context=1, data=1, sequence_parallel=False, zero=1, zero_group=1,
    micro_batch=1, micro_batches=1, recompute="none", schedule="1f1b",
)  # fmt: skip


def build(model: ModelPlan = MODEL, layout: Layout = LAYOUT, **changes: Any) -> Any:
    options: dict[str, Any] = {
        "sequence_length": 16, "rope_base": 10_000.0, "precision": "fp32", "attention": "auto", "seed": 7,
    }  # fmt: skip
    (chunk,) = build_model(model, layout, **options | changes)
    return chunk


@pytest.mark.usefixtures("alone")
def test_it_has_internlm2s_parameters_and_no_others() -> None:
    shapes = {name: tuple(parameter.shape) for name, parameter in build().named_parameters()}
    layer = {
        "input_layernorm.weight": (32,),
        "self_attention.linear_qkv.weight": (64, 32),
        "self_attention.linear_proj.weight": (32, 32),
        "pre_mlp_layernorm.weight": (32,),
        "mlp.linear_fc1.weight": (96, 32),
        "mlp.linear_fc2.weight": (32, 48),
    }
    assert shapes == {
        "embedding.word_embeddings.weight": (64, 32),
        **{f"decoder.layers.{index}.{name}": shape for index in range(2) for name, shape in layer.items()},
        "decoder.final_layernorm.weight": (32,),
        "output_layer.weight": (64, 32),
    }


@pytest.mark.usefixtures("alone")
def test_biases_stand_on_query_key_value_and_output_alone() -> None:
    biased = {
        name for name, _ in build(structs.replace(MODEL, attention_bias=True)).named_parameters() if "bias" in name
    }
    assert biased == {
        f"decoder.layers.{index}.self_attention.linear_{part}.bias" for index in range(2) for part in ("qkv", "proj")
    }


@pytest.mark.usefixtures("alone")
def test_initial_weights_depend_on_the_seed_and_the_name_alone() -> None:
    one, same, other = (dict(named_parameters([build(seed=seed)])) for seed in (7, 7, 8))
    deeper = dict(named_parameters([build(structs.replace(MODEL, layers=3))]))
    for name, parameter in one.items():
        assert torch.equal(parameter, same[name])
        assert torch.equal(parameter, deeper[name])
        assert (parameter.ndim == 1) == torch.equal(parameter, other[name])
    first, second = (one[f"decoder.layers.{index}.mlp.linear_fc1.weight"] for index in range(2))
    assert not torch.equal(first, second)
    wide = dict(named_parameters([build(structs.replace(MODEL, hidden_size=128))]))
    for index in range(2):
        for name in ("self_attention.linear_proj", "mlp.linear_fc2"):
            spread = wide[f"decoder.layers.{index}.{name}.weight"].std().item()
            assert spread == pytest.approx(0.02 / math.sqrt(2 * (index + 1)), rel=0.1)
    assert wide["output_layer.weight"].std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("attention", ["reference", "sdpa"])
def test_a_documents_loss_does_not_depend_on_its_neighbours(attention: str) -> None:
    model = build(attention=attention)
    tokens = torch.randint(0, 64, (1, 17), generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[:, :9] = (changed[:, :9] + 1) % 64
    edges = torch.tensor([[0, 9, 16]])
    with torch.no_grad():
        before, after = (model(x[:, :-1], None, edges, labels=x[:, 1:]) for x in (tokens, changed))
        alone = model(tokens[:, 9:-1], None, None, labels=tokens[:, 10:])
    assert torch.equal(before[:, 9:], after[:, 9:])
    assert not torch.equal(before[:, :8], after[:, :8])
    torch.testing.assert_close(before[:, 9:], alone)  # RoPE needs no reset: only distances count


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    ("recompute", "modules", "calls"),
    [("none", (), 2), ("full", (), 4), ("selective", ("core_attention", "mlp"), 2), ("selective", ("norm",), 0)],
)
def test_a_layer_adds_and_normalises_in_one_operator(
    recompute: Any, modules: Any, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each layer in each of its forward passes; but not where the norm alone is made again. The bits are Megatron's."""
    layout = structs.replace(LAYOUT, recompute=recompute, recompute_modules=modules)
    tokens = torch.randint(0, 64, (2, 17), generator=torch.Generator().manual_seed(0))
    fused = Mock(wraps=model.fused.add_rms_norm)
    monkeypatch.setattr(model.fused, "add_rms_norm", fused)

    def step() -> list[torch.Tensor]:
        chunk = build(structs.replace(MODEL, attention_bias=True), layout=layout).train()
        loss = chunk(tokens[:, :-1], None, None, labels=tokens[:, 1:])
        loss.sum().backward()
        return [loss.detach(), *(parameter.grad for parameter in chunk.parameters())]

    ours = step()
    assert fused.call_count == calls
    monkeypatch.setattr(model, "Layer", TransformerLayer)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(ours, step(), strict=True))
    assert fused.call_count == calls


def test_what_is_not_built_is_refused_in_a_sentence() -> None:
    with pytest.raises(parallel.UnsupportedLayoutError, match="weight parallelism is not built yet"):
        parallel.initialize(structs.replace(LAYOUT, weight=2), seed=0)


def test_flops_of_a_token_by_hand() -> None:
    products = 2 * (32 * 8 * 8 + 32 * 32 + 3 * 32 * 48) + 32 * 64
    attention = 2 * 4 * 8 * 16  # layers x heads x size x length: two products over half of the square
    assert model_flops_per_token(MODEL, 16) == 6 * (products + attention)
