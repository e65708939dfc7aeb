"""Memory of a rank against closed forms, counted bytes and itself on arrays."""

import dataclasses
import itertools
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainwright.compiler.cost.activations import passes_in_flight, saved_by_layer
from trainwright.compiler.cost.case import V_SCHEDULES, Case, ModelShape, even_part, fuses_loss
from trainwright.compiler.cost.framework import known_frameworks, load_framework
from trainwright.compiler.cost.memory import MOMENTS, estimate_rank_memory, peak_bytes, rank_memory
from trainwright.compiler.cost.orders import in_flight, order
from trainwright.compiler.cost.parameters import part_parameters

SMALL = ModelShape(
    layers=24, hidden_size=2048, heads=16, kv_heads=8, head_size=128, ffn_size=8192, vocab_size=92_544
)  # fmt: skip
MIDDLE = ModelShape(
    layers=32, hidden_size=4096, heads=32, kv_heads=8, head_size=128, ffn_size=14_336, vocab_size=92_544
)  # fmt: skip
SMALL_PARAMETERS = 1_889_110_016


def case(model: ModelShape = SMALL, **values: Any) -> Case:
    values.setdefault("sequence_length", 4096)
    values.setdefault("sequence_parallel", False)
    if "zero" in values:
        values.setdefault("zero_group", values.get("data", 1))
    return Case(model=model, **values)


def fullest(asked: Case, pipeline_rank: int = 0) -> Any:
    return rank_memory(asked, even_part(asked, pipeline_rank))


@pytest.mark.parametrize(
    ("precision", "zero", "data", "states_per_parameter"),
    [
        ("bf16", 0, 1, 18),
        ("bf16", 1, 1, 18),
        ("bf16", 1, 4, 2 + 4 + 12 / 4),
        ("bf16", 2, 4, 2 + (4 + 12) / 4),
        ("bf16", 3, 4, 18 / 4),
        ("fp32", 0, 1, 16),
        ("fp32", 1, 8, 9),
        ("fp32", 3, 8, 2),
    ],
)
def test_model_states_per_parameter(precision: Any, zero: int, data: int, states_per_parameter: float) -> None:
    memory = fullest(case(precision=precision, zero=zero, data=data))
    assert memory.states == SMALL_PARAMETERS * states_per_parameter


def test_zero_shards_inside_its_group() -> None:
    whole, halves = (fullest(case(zero=1, data=8, zero_group=group)) for group in (8, 4))
    assert halves.optimizer == 2 * whole.optimizer
    assert (halves.parameters, halves.gradients) == (whole.parameters, whole.gradients)


def test_weight_parallel_ranks_divide_all_states() -> None:
    alone, cut = (fullest(case(zero=1, context=4, data=2, weight=weight)) for weight in (1, 4))
    assert (alone.parameters, alone.gradients) == (4 * cut.parameters, 4 * cut.gradients)
    assert alone.optimizer == cut.optimizer == 12 * SMALL_PARAMETERS / 8
    assert cut.communication > alone.communication  # a layer is whole while it works


def test_activations_are_korthikantis_34sbh() -> None:
    """Of a GPT with f = 4h and dropout, without the statistics of norms and softmax, which the paper leaves out."""
    gpt = ModelShape(1, 1024, 8, 8, 128, 4096, 1024, gated=False, dropout=True)
    saved = saved_by_layer(case(gpt, sequence_length=2048), load_framework("megatron").memory)
    counted = sum(size for kind, size in saved.items() if kind not in ("norm statistics", "softmax sums"))
    assert counted == 34 * 1024 * 2048


def test_stored_scores_are_korthikantis_5as() -> None:
    gpt = ModelShape(1, 1024, 8, 8, 128, 4096, 1024, gated=False, dropout=True, stored_scores=True)
    saved = saved_by_layer(case(gpt, sequence_length=2048), load_framework("megatron").memory)
    assert saved["attention scores"] == 5 * 8 * 2048 * 2048
    assert "softmax sums" not in saved


def test_packed_documents_are_copied_into_padded_rows_by_our_attention_alone() -> None:
    def saved(framework: str, document_length: float | None) -> dict[str, Any]:
        asked = case(document_length=document_length, framework=framework)
        return saved_by_layer(asked, load_framework(framework).memory)

    assert saved("megatron", 500.0) == saved("megatron", None)
    whole, packed = saved("trainwright", None), saved("trainwright", 500.0)
    grown = {kind: packed[kind] / whole[kind] for kind in packed if packed[kind] != whole[kind]}
    assert grown == pytest.approx({"queries, keys, values": 1.333, "attention output": 2.333})


def test_sequence_parallelism_splits_a_whole_layer() -> None:
    """sbh (10 + 24 / t) without it, 34 sbh / t with it."""
    gpt = ModelShape(1, 1024, 8, 8, 128, 4096, 1024, gated=False, dropout=True)

    def counted(sequence_parallel: bool) -> Any:
        asked = case(gpt, sequence_length=2048, tensor=4, sequence_parallel=sequence_parallel)
        saved = saved_by_layer(asked, load_framework("megatron").memory)
        return sum(size for kind, size in saved.items() if kind not in ("norm statistics", "softmax sums"))

    assert counted(False) == (10 + 24 / 4) * 1024 * 2048
    assert counted(True) == 34 / 4 * 1024 * 2048


def test_full_recomputation_keeps_the_input_of_each_layer_and_one_layer_at_work() -> None:
    kinds = fullest(case(recompute="full", pipeline=2)).activations
    assert kinds["inputs of recomputed layers"] == 12 * 2 * 2048 * 4096
    assert kinds["gate and up"] == 0
    assert kinds["recomputed layer"] == sum(saved_by_layer(case(), load_framework("trainwright").memory).values())


def test_recomputing_some_layers_lies_between_all_and_none() -> None:
    kept = [fullest(case(recompute="full", recompute_layers=n)).activations_total for n in (24, 16, 8)]
    kept.append(fullest(case()).activations_total)
    assert kept == sorted(kept)
    assert fullest(case(recompute="full", recompute_layers=24)) == fullest(case(recompute="full"))


@pytest.mark.parametrize(
    ("modules", "dropped"),
    [
        (("core_attention",), {"softmax sums"}),
        (("norm",), {"inputs of qkv and MLP", "norm statistics"}),
        (("activation",), {"activation product"}),
        (("mlp",), {"gate and up", "activation product"}),
    ],
)
def test_selective_recomputation_drops_what_its_modules_make(modules: Any, dropped: set[str]) -> None:
    none = fullest(case(pipeline=2))
    some = fullest(case(pipeline=2, recompute="selective", recompute_modules=modules))
    gone = {kind for kind, size in none.activations.items() if size and not some.activations.get(kind)}
    assert gone == dropped
    assert some.activations["recomputed layer"] == sum(none.activations[kind] for kind in dropped) / 12


def test_micro_batches_in_flight() -> None:
    plain = case(pipeline=4, micro_batches=8)
    assert [passes_in_flight(plain, rank) for rank in range(4)] == [4, 3, 2, 1]
    assert passes_in_flight(case(pipeline=4, micro_batches=2), 0) == 2
    chunked = case(pipeline=4, virtual_pipeline=2, micro_batches=8, schedule="interleaved")
    assert passes_in_flight(chunked, 0) == 4 + 3 / 2  # p + (p - 1) / v
    assert passes_in_flight(dataclasses.replace(plain, schedule="gpipe"), 0) == 8
    assert passes_in_flight(dataclasses.replace(plain, schedule="zb-1p"), 3) == 4
    assert passes_in_flight(dataclasses.replace(plain, schedule="zb-2p"), 0) == 7
    assert passes_in_flight(dataclasses.replace(plain, schedule="v-half"), 0) == 3.5
    assert passes_in_flight(dataclasses.replace(plain, waiting=2), 0) == 6  # the ends of vocabulary parallelism
    for schedule in V_SCHEDULES:
        asked = dataclasses.replace(plain, schedule=schedule)
        assert (even_part(asked, 0).head, even_part(asked, 3).head) == (1, 0)


@pytest.mark.parametrize(
    ("schedule", "chunks"),
    [("gpipe", 1), ("1f1b", 1), ("interleaved", 2), ("interleaved", 4), ("zb-1p", 1), ("zb-2p", 1), ("zb-v", 2)],
)
def test_micro_batches_in_flight_are_those_of_the_simulated_order(schedule: str, chunks: int) -> None:
    for ranks in (2, 4, 8):
        asked = case(pipeline=ranks, virtual_pipeline=chunks, micro_batches=2 * ranks, schedule=schedule)
        for rank in range(ranks):
            kept = in_flight(order(schedule, rank, ranks, chunks, 2 * ranks))
            assert passes_in_flight(asked, rank) == kept / chunks


def test_memory_never_grows_with_an_axis_that_splits() -> None:
    for axis in ("tensor", "data", "context", "pipeline"):
        sizes = [peak_bytes(case(MIDDLE, zero=1, micro_batches=8, **{axis: size})) for size in (1, 2, 4, 8)]
        assert all(smaller < larger for larger, smaller in itertools.pairwise(sizes)), axis


def test_memory_grows_with_the_micro_batch_and_falls_with_zero() -> None:
    sizes = [peak_bytes(case(MIDDLE, micro_batch=size)) for size in (1, 2, 4)]
    assert sizes == sorted(sizes)
    stages = [peak_bytes(case(MIDDLE, zero=zero, data=8)) for zero in (0, 1, 2, 3)]
    assert stages == sorted(stages, reverse=True)


def test_offload_takes_away_what_it_names() -> None:
    here, away = fullest(case()), fullest(case(offload_optimizer=1.0))
    assert away.optimizer == 0
    assert away.total == here.total - here.optimizer
    assert fullest(case(offload_activations=0.5)).activations_total < here.activations_total


def test_the_moment_of_the_peak() -> None:
    def moment(asked: Case, pipeline_rank: int = 0) -> str:
        return MOMENTS[fullest(asked, pipeline_rank).moment]

    two_ranks = case(pipeline=2, micro_batches=4)
    assert moment(two_ranks, 0) == "the first layer's backward pass"
    assert moment(two_ranks, 1) == "the loss"
    assert fullest(two_ranks, 0).logits == 0
    assert fullest(two_ranks, 1).logits == 6 * 4096 * 92_544 + (128 << 20)  # bf16, fp32, and a piece
    assert moment(case(sequence_length=64)) == "the head's backward pass"  # few tokens: the weight's gradient is larger


def test_a_loss_in_place_makes_no_second_copy_of_the_logits() -> None:
    asked = case(MIDDLE, sequence_length=16_384, framework="megatron")
    plain, in_place = fullest(asked), fullest(dataclasses.replace(asked, loss_in_place=True))
    assert plain.logits == 3 * in_place.logits == 6 * 16_384 * 92_544


def test_the_fused_loss_holds_a_piece_of_the_logits_however_many_tokens_there_are() -> None:
    def head(tokens: int) -> Any:
        return fullest(case(MIDDLE, pipeline=2, sequence_length=tokens, recompute="full", fused_loss=True), 1)

    few, many = head(6144), head(8192)
    assert MOMENTS[few.moment] == MOMENTS[many.moment] == "the head's backward pass"
    # A piece of as many tokens as the hidden size in bf16, the weight's gradient in fp32 and a bf16 product of it; and
    # the gradient of the head's input.
    assert many.temporaries == (2 + 4 + 2) * 92_544 * 4096 + 2 * 8192 * 4096
    assert many.temporaries - few.temporaries == 2 * 2048 * 4096
    assert many.logits == few.logits == 0


def test_the_loss_is_fused_where_its_logits_would_take_more_than_4_gib() -> None:
    assert fuses_loss("auto", 16_384, 92_544)
    assert not fuses_loss("auto", 4_096, 92_544)
    assert not fuses_loss("auto", 16_384, 92_544 / 8)
    assert fuses_loss("fused", 1, 1)
    assert not fuses_loss("logits", 1 << 20, 92_544)


def test_the_plan_carries_whole_bytes_that_add_up() -> None:
    asked = case(MIDDLE, tensor=2, sequence_parallel=True, pipeline=4, micro_batches=8, zero=1, data=3)
    memory = estimate_rank_memory(asked, even_part(asked, 3))
    assert sum(memory.activations.values()) == memory.activations_bytes
    assert memory.total_bytes == memory.allocated_bytes + memory.framework_bytes
    assert memory.binds in ("parameters", "gradients", "optimizer", "activations", "logits")
    assert memory.peak in MOMENTS


def test_a_cpu_has_no_device_context_that_could_be_the_largest_term() -> None:
    small = case(dataclasses.replace(MIDDLE, layers=1, hidden_size=64, heads=4, kv_heads=2, head_size=16, ffn_size=128))
    part = even_part(small, 0)
    there, here = (estimate_rank_memory(dataclasses.replace(small, on_cpu=on_cpu), part) for on_cpu in (False, True))
    assert there.framework_bytes > 0
    assert here.framework_bytes == 0
    assert getattr(here, f"{here.binds}_bytes") > 0


@pytest.mark.parametrize("tokens", [256, 4096])
def test_a_piece_of_the_loss_is_an_eighth_of_the_logits_and_on_a_cpu_what_its_cache_holds(tokens: int) -> None:
    narrow = ModelShape(layers=1, hidden_size=8, heads=1, kv_heads=1, head_size=8, ffn_size=8, vocab_size=512)
    asked = case(narrow, precision="fp32", sequence_length=tokens)
    there, here = fullest(asked), fullest(dataclasses.replace(asked, on_cpu=True))
    assert MOMENTS[there.moment] == MOMENTS[here.moment] == "the loss"
    logits_bytes = 4 * tokens * 512
    assert there.logits == logits_bytes + logits_bytes / 8
    assert here.logits == logits_bytes + min(logits_bytes, 2 << 20)


def layouts(count: int) -> dict[str, list[Any]]:
    """Random legal axes, drawn once."""
    draw = random.Random(7)
    rows = []
    for _ in range(count):
        tensor = draw.choice([1, 2, 4, 8])
        pipeline = draw.choice([1, 2, 4, 8])
        data = draw.choice([1, 2, 8])
        rows.append(
            {
                "tensor": tensor,
                "pipeline": pipeline,
                "virtual_pipeline": draw.choice([1, 2]) if pipeline > 1 else 1,
                "context": draw.choice([1, 2, 4]),
                "data": data,
                "sequence_parallel": tensor > 1 and draw.random() < 0.7,
                "zero": draw.choice([0, 1, 2, 3]),
                "zero_group": draw.choice([1, data]),
                "micro_batch": draw.choice([1, 2, 4]),
                "micro_batches": draw.choice([1, 4, 16]),
                "weight": draw.choice([1, 2]),
            }
        )
    return {key: [row[key] for row in rows] for key in rows[0]}


@pytest.mark.parametrize("framework", known_frameworks())
@pytest.mark.parametrize(("recompute", "on_cpu"), [("none", False), ("selective", True), ("full", False)])
def test_an_array_of_layouts_gives_what_each_gives_alone(recompute: Any, on_cpu: bool, framework: str) -> None:
    axes = layouts(200)
    fixed = {"recompute": recompute, "framework": framework, "on_cpu": on_cpu}
    together = peak_bytes(case(MIDDLE, **fixed, **{key: np.array(values) for key, values in axes.items()}))
    alone = [
        peak_bytes(case(MIDDLE, **fixed, **dict(zip(axes, row, strict=True))))
        for row in zip(*axes.values(), strict=True)
    ]
    np.testing.assert_allclose(together, alone, rtol=1e-12)


@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
def test_the_peak_is_the_fullest_ranks_total(recompute: Any) -> None:
    for row in zip(*layouts(50).values(), strict=True):
        asked = case(MIDDLE, recompute=recompute, **dict(zip(layouts(1), row, strict=True)))
        assert peak_bytes(asked) == max(fullest(asked, rank).total for rank in range(asked.pipeline))


def test_parameters_of_all_pipeline_ranks_are_the_model() -> None:
    asked = case(pipeline=4)
    assert sum(part_parameters(asked, even_part(asked, rank)) for rank in range(4)) == SMALL_PARAMETERS


@pytest.mark.slow
def test_model_states_are_what_megatron_allocates() -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.compiler.megatron_states"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    for allocated, planned in json.loads(done.stdout.splitlines()[-1]):
        assert allocated == planned
