"""The time of a step: its parts, its closed forms, what makes it longer, and a published table in shape."""

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from trainwright.compiler.cost.case import Case, ModelShape, even_part
from trainwright.compiler.cost.framework import TimeProfile, known_frameworks, load_framework
from trainwright.compiler.cost.operators import Operators
from trainwright.compiler.cost.time import quick_step_time, step_time
from trainwright.spec.device import HardwareFile, Link, known_hardware, load_hardware
from trainwright.spec.plan import StepTime

SEVEN = ModelShape(layers=32, hidden_size=4096, heads=32, kv_heads=8, head_size=128, ffn_size=14_336, vocab_size=92_544)
A100 = load_hardware("a100-80gb")
assert A100 is not None


def case(**changes: Any) -> Case:
    rest: dict[str, Any] = {"model": SEVEN, "sequence_length": 4096, "micro_batches": 8, "zero": 1, "data": 8}
    rest |= changes
    rest.setdefault("zero_group", rest["data"])
    return Case(**rest)


def whole(priced: Case, hardware: HardwareFile = A100, profile: TimeProfile | None = None) -> StepTime:
    parts = [even_part(priced, rank) for rank in range(int(priced.pipeline))]
    return step_time(priced, parts, hardware, profile)


LAYOUTS = {
    "data": case(),
    "tensor": case(tensor=8, sequence_parallel=True, data=2),
    "tensor without sequence": case(tensor=4, data=2),
    "pipeline": case(pipeline=4, data=2),
    "interleaved": case(pipeline=4, virtual_pipeline=2, schedule="interleaved", data=2),
    "long pipeline": case(pipeline=8, data=1, micro_batches=512),
    "zero bubble": case(pipeline=4, schedule="zb-1p", data=2),
    "not simulated": case(pipeline=4, virtual_pipeline=2, schedule="v-half", data=2),
    "context": case(context=4, sequence_length=131_072, data=2),
    "context by heads and a ring": case(context=8, context_heads=4, context_exchange="ring", sequence_length=131_072),
    "full": case(recompute="full"),
    "some layers": case(recompute="full", recompute_layers=4, pipeline=2, data=4),
    "selective": case(recompute="selective"),
    "by module": case(recompute="selective", recompute_modules=("norm", "activation", "mlp")),
    "no sharding": case(zero=0, zero_group=1),
    "gradients": case(zero=2),
    "weights": case(zero=3),
    "groups": case(data=64, zero_group=8),
    "weight parallel": case(weight=8),
    "documents": case(sequence_length=32_768, document_length=2048.0),
}


@pytest.mark.parametrize("across", ["gather", "ring"])
def test_a_group_of_all_context_ranks_is_the_all_to_all(across: Any) -> None:
    """And of a smaller one the exchange takes less than that of keys and values between all: a node holds it."""
    step = {
        heads: whole(case(context=16, context_heads=heads, context_exchange=across, sequence_length=131_072, data=1))
        for heads in (1, 4, 16)
    }
    by_heads = whole(case(context=16, context_exchange="all_to_all", sequence_length=131_072, data=1))
    assert step[16] == by_heads
    assert step[4].parts["context exchange"] < step[1].parts["context exchange"]


@pytest.mark.parametrize("name", LAYOUTS)
def test_parts_add_up_and_none_takes_less_than_no_time(name: str) -> None:
    step = whole(LAYOUTS[name])
    assert sum(step.parts.values()) == pytest.approx(step.time_s)
    assert min(step.parts.values()) > -1e-9
    assert step.low_s < step.time_s < step.high_s
    assert 0 <= step.bubble < 1


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_closed_form_is_near_the_simulation(name: str) -> None:
    assert quick_step_time(LAYOUTS[name], A100) == pytest.approx(whole(LAYOUTS[name]).time_s, rel=0.05)


def test_one_rank_takes_its_micro_batches_one_after_the_other() -> None:
    """Nothing is exchanged, so the step is m micro-batches, the optimizer and the host."""
    lone = case(data=1, micro_batches=6)
    step = whole(lone)
    (chunk,) = step.chunks
    rest = step.parts["optimizer"] + step.parts["host"]
    assert step.time_s == pytest.approx(6 * (chunk.forward_s + chunk.backward_s) + rest)
    assert step.parts.keys() <= {"matmul", "attention", "elementwise", "launches", "optimizer", "host"}


def test_products_take_their_flops_at_the_share_that_the_device_reaches() -> None:
    flat = msgspec.structs.replace(A100, efficiency=msgspec.structs.replace(A100.efficiency, matmul=((1.0, 0.5),)))
    operators = Operators(case(), flat, load_framework("trainwright").time)
    m, k, n = 4096, 8192, 8192
    compute = 2 * m * k * n / (312e12 * 0.5) * (1 + 32 / k)
    moved = 2 * (m * k + k * n + m * n) / 2.0e12
    assert operators.product(m, k, n) == pytest.approx(compute + 0.5 * moved)


def test_the_fused_loss_makes_its_logits_again_in_the_backward_pass() -> None:
    profile = load_framework("trainwright").time
    plain, fused = (Operators(case(fused_loss=fused), A100, profile).head() for fused in (False, True))
    assert fused.forward == plain.forward
    assert fused.backward.matmul == 2 * plain.backward.matmul
    assert fused.weight.matmul == plain.weight.matmul


def test_widths_that_tensor_cores_cannot_read_at_once_cost() -> None:
    operators = Operators(case(), A100, load_framework("trainwright").time)
    aligned, eight, odd = (operators.product(4096, 4096, n) for n in (4096, 4088, 4095))
    assert aligned < eight < odd


def test_all_layouts_of_an_array_are_priced_as_each_alone() -> None:
    tensor = np.array([1, 1, 2, 4, 8, 8, 1, 2])
    pipeline = np.array([1, 2, 4, 1, 1, 8, 8, 16])
    virtual = np.array([1, 1, 2, 1, 1, 4, 1, 2])
    data = 256 // (tensor * pipeline)
    sizes = {"tensor": tensor, "pipeline": pipeline, "virtual_pipeline": virtual, "data": data, "zero_group": data}
    sizes |= {"sequence_parallel": tensor > 1, "micro_batch": np.array([1, 2] * 4), "micro_batches": 1024 // data}
    for changes in ({}, {"zero": 3}, {"recompute": "full"}, {"context": 2}, {"precision": "fp16"}):
        together = quick_step_time(case(**sizes, **changes), A100)
        alone = [
            quick_step_time(case(**{name: value[i].item() for name, value in sizes.items()}, **changes), A100)
            for i in range(len(tensor))
        ]
        assert together == pytest.approx(alone)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_better_device_is_never_slower(name: str) -> None:
    """A wider link, a faster memory, a higher peak."""
    before = whole(LAYOUTS[name]).time_s
    assert A100 is not None
    links = A100.links
    for which in ("device", "network"):
        link: Link = getattr(links, which)
        faster = msgspec.structs.replace(link, bytes_per_s=2 * link.bytes_per_s)
        wider = msgspec.structs.replace(A100, links=msgspec.structs.replace(links, **{which: faster}))
        assert whole(LAYOUTS[name], wider).time_s <= before * (1 + 1e-9)
    quicker = msgspec.structs.replace(A100, memory_bytes_per_s=4.0e12)
    assert whole(LAYOUTS[name], quicker).time_s < before
    stronger = msgspec.structs.replace(A100, peak_flops=msgspec.structs.replace(A100.peak_flops, bf16=6.0e14))
    assert whole(LAYOUTS[name], stronger).time_s < before


def test_recomputation_costs_what_it_repeats() -> None:
    none, selective, full = (whole(case(recompute=kind)) for kind in ("none", "selective", "full"))
    assert "recompute" not in none.parts
    assert 0 < selective.parts["recompute"] < full.parts["recompute"]
    half = whole(case(recompute="full", recompute_layers=16))
    assert half.parts["recompute"] == pytest.approx(full.parts["recompute"] / 2)


def test_documents_in_a_sequence_shorten_attention_alone() -> None:
    long = case(sequence_length=32_768)
    packed = replace(long, document_length=2048.0)
    before, after = whole(long).parts, whole(packed).parts
    assert after["attention"] < before["attention"] / 8
    assert after["matmul"] == pytest.approx(before["matmul"])


def test_a_head_on_the_last_rank_is_told_as_imbalance() -> None:
    step = whole(case(pipeline=4, data=2))
    assert step.parts["stage imbalance"] > 0
    assert step.parts["pipeline bubble"] > 0
    assert step.parts["pipeline transfer"] > 0


def test_overlap_hides_exchanges_and_only_what_it_can() -> None:
    profile = load_framework("trainwright").time
    hiding = msgspec.structs.replace(profile, reduce_overlap=0.8, gather_overlap=0.8)
    plain, hidden = (whole(case(data=64), profile=each).parts for each in (profile, hiding))
    assert 0 < hidden["gradient reduction"] < plain["gradient reduction"]
    assert 0 < hidden["parameter gather"] < plain["parameter gather"]


def test_nothing_is_priced_without_a_peak() -> None:
    cpu = load_hardware("cpu")
    assert cpu is not None
    with pytest.raises(ValueError, match="no peak in bf16"):
        whole(case(), cpu)


@pytest.mark.parametrize("framework", known_frameworks())
@pytest.mark.parametrize("device", [name for name in known_hardware() if name not in ("cpu", "local")])
def test_every_framework_is_priced_on_every_device(framework: str, device: str) -> None:
    hardware = load_hardware(device)
    assert hardware is not None
    step = whole(case(framework=framework, precision="fp16", tensor=2, pipeline=2), hardware)
    assert 0.1 < step.time_s < 100


def test_sharding_inside_a_node_scales_and_over_the_whole_axis_does_not() -> None:
    """InternEvo's own table (7B on A100, 8 to 1,024 GPUs): 4,078 to 3,625 tokens/s/GPU with `zero1 = 8`, to 2,271
    with `zero1 = -1`, which sends each rank's share of the weights to all others, one after the other."""
    model = replace(SEVEN, kv_heads=32, ffn_size=11_008, vocab_size=103_168)
    assert A100 is not None
    slow = msgspec.structs.replace(A100.links.network, bytes_per_s=6.25e9)  # type: ignore[type-var]
    cluster = msgspec.structs.replace(A100, links=msgspec.structs.replace(A100.links, network=slow))

    def speed(gpus: int, group: int) -> float:
        step = whole(
            case(
                model=model,
                sequence_length=2048,
                micro_batch=2,
                micro_batches=4,
                data=gpus,
                zero_group=group,
                framework="internevo",
            ),
            cluster,
        )
        return 2 * 4 * 2048 / step.time_s

    in_groups = [speed(gpus, 8) / speed(8, 8) for gpus in (64, 256, 1024)]
    over_all = [speed(gpus, gpus) / speed(8, 8) for gpus in (64, 256, 1024)]
    assert in_groups[-1] == pytest.approx(3625 / 4078, abs=0.06)
    assert over_all[-1] == pytest.approx(2271 / 4062, abs=0.08)
    assert over_all == sorted(over_all, reverse=True)
