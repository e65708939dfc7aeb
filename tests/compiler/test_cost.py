"""Parameters and FLOPs against published and counted figures."""

from typing import Any

import msgspec
import pytest

from trainwright.compiler.cost.case import Case, ModelShape, even_part
from trainwright.compiler.cost.flops import model_flops_per_token, recomputed_flops_per_token
from trainwright.compiler.cost.parameters import count_parameters, part_parameters
from trainwright.compiler.passes.place_stages import model_chunks
from trainwright.spec.plan import Layout, ModelPlan


def model(**sizes: Any) -> ModelPlan:
    rest = {"norm_eps": 1e-5, "init_std": 0.02, "attention_bias": False, "tie_embeddings": False, "parameters": 0}
    sizes.setdefault("head_size", sizes["hidden_size"] // sizes["heads"])
    return ModelPlan(**{**rest, **sizes})


def layout(**axes: Any) -> Layout:
    rest: dict[str, Any] = {"tensor": 1, "pipeline": 1, "virtual_pipeline": 1, "context": 1, "data": 1}
    rest |= {"sequence_parallel": False, "zero": 1, "micro_batch": 1, "micro_batches": 1, "recompute": "none"}
    rest |= axes
    rest.setdefault("zero_group", rest["data"])
    rest.setdefault("schedule", "interleaved" if rest["virtual_pipeline"] > 1 else "1f1b")
    return Layout(**rest)


def held(sizes: ModelPlan, axes: Layout, pipeline_rank: int) -> Any:
    """Parameters of a pipeline rank."""
    case = Case(model=ModelShape.of(sizes), sequence_length=1, tensor=axes.tensor, pipeline=axes.pipeline)
    return part_parameters(case, even_part(case, pipeline_rank))


SMALL = model(layers=24, hidden_size=2048, heads=16, kv_heads=8, ffn_size=8192, vocab_size=92_544)
MIDDLE = model(layers=32, hidden_size=4096, heads=32, kv_heads=8, ffn_size=14_336, vocab_size=92_544)
LARGE = model(layers=48, hidden_size=6144, heads=48, kv_heads=8, ffn_size=16_384, vocab_size=92_544)
FIRST_MIDDLE = model(
    layers=32, hidden_size=4096, heads=32, kv_heads=32, ffn_size=11_008, vocab_size=103_168, attention_bias=True
)
FIRST_LARGE = model(layers=60, hidden_size=5120, heads=40, kv_heads=40, ffn_size=13_824, vocab_size=103_168)


@pytest.mark.parametrize(
    ("sizes", "parameters"),
    [
        (SMALL, 1_889_110_016),
        (MIDDLE, 7_737_708_544),
        (LARGE, 19_861_149_696),
        (FIRST_MIDDLE, 7_321_948_160),
        (FIRST_LARGE, 20_088_714_240),
    ],
)
def test_parameters_are_those_of_the_released_models(sizes: ModelPlan, parameters: int) -> None:
    assert count_parameters(sizes) == parameters


@pytest.mark.parametrize(
    ("sizes", "length", "gigaflops"),
    [
        (SMALL, 4096, 11.40),
        (MIDDLE, 4096, 47.37),
        (LARGE, 4096, 123.0),
        (SMALL, 32_768, 19.86),
        (MIDDLE, 32_768, 69.92),
        (LARGE, 32_768, 173.7),
    ],
)
def test_flops_per_token_with_causal_attention_counted_once(sizes: ModelPlan, length: int, gigaflops: float) -> None:
    assert model_flops_per_token(sizes, length) / 1e9 == pytest.approx(gigaflops, rel=5e-4)


def test_full_recomputation_runs_the_layers_forward_again() -> None:
    head = 6 * SMALL.vocab_size * SMALL.hidden_size
    layers = model_flops_per_token(SMALL, 4096) - head
    assert recomputed_flops_per_token(SMALL, 4096, "full") == pytest.approx(layers / 3)
    assert recomputed_flops_per_token(SMALL, 4096, "none") == 0
    head = 2 * SMALL.vocab_size * SMALL.hidden_size
    assert recomputed_flops_per_token(SMALL, 4096, "none", fused_loss=True) == head


@pytest.mark.parametrize(("pipeline", "virtual_pipeline"), [(1, 1), (2, 1), (4, 1), (2, 2), (4, 2)])
def test_pipeline_ranks_hold_the_whole_model_together(pipeline: int, virtual_pipeline: int) -> None:
    axes = layout(pipeline=pipeline, virtual_pipeline=virtual_pipeline)
    assert sum(held(MIDDLE, axes, rank) for rank in range(pipeline)) == 7_737_708_544


def test_tensor_ranks_split_all_but_norms() -> None:
    norms = (2 * 32 + 1) * 4096
    assert held(MIDDLE, layout(tensor=4), 0) == (7_737_708_544 - norms) // 4 + norms


def test_a_tied_table_stands_on_both_ends_of_a_pipeline_and_once_without_one() -> None:
    tied = msgspec.structs.replace(SMALL, tie_embeddings=True)
    table = tied.vocab_size * tied.hidden_size
    alone = held(tied, layout(), 0)
    assert alone == count_parameters(tied) == 1_889_110_016 - table
    assert sum(held(tied, layout(pipeline=2), rank) for rank in range(2)) == alone + table


def test_interleaved_chunks_are_megatrons() -> None:
    """Chunk c of pipeline rank r holds block c * pipeline + r."""
    chunks = model_chunks(model(layers=8, hidden_size=64, heads=4, kv_heads=2, ffn_size=128, vocab_size=512),
                          layout(pipeline=2, virtual_pipeline=2))  # fmt: skip
    assert [(each.pipeline_rank, each.chunk, each.first_layer, each.last_layer) for each in chunks] == [
        (0, 0, 0, 2),
        (0, 1, 4, 6),
        (1, 0, 2, 4),
        (1, 1, 6, 8),
    ]
    assert [each.embedding for each in chunks] == [True, False, False, False]
    assert [each.head for each in chunks] == [False, False, False, True]
