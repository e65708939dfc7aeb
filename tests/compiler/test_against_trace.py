"""Planned and traced memory meet kind by kind, and what differs is named."""

import io

import pytest
from msgspec.structs import replace
from rich.console import Console

from trainwright.compiler.cost.against_trace import compare
from trainwright.compiler.present.traced import present_traced, traced_to_json
from trainwright.spec.plan import Estimate, RankMemory
from trainwright.spec.traced import TracedRank

MIB = 2**20


def memory(activations: dict[str, int], framework_bytes: int = 0, temporaries_bytes: int = 0) -> RankMemory:
    total = 120 * MIB + sum(activations.values()) + framework_bytes + temporaries_bytes
    return RankMemory(
        pipeline_rank=0, parameters_bytes=10 * MIB, gradients_bytes=20 * MIB, optimizer_bytes=60 * MIB,
        activations_bytes=sum(activations.values()), activations=activations, logits_bytes=30 * MIB,
        communication_bytes=0, temporaries_bytes=temporaries_bytes, framework_bytes=framework_bytes,
        total_bytes=total, peak="the loss", binds="optimizer",
    )  # fmt: skip


PLANNED = memory({"gate and up": 50 * MIB, "activation product": 25 * MIB, "softmax sums": 5 * MIB}, 600 * MIB)
TRACED = memory({"MLP": 75 * MIB, "attention": 5 * MIB})


def estimate() -> Estimate:
    none: dict[str, None] = dict.fromkeys(
        ("capacity_bytes", "step", "tokens_per_s", "mfu", "goodput", "duration_s", "duration_low_s",
         "duration_high_s", "gpu_hours", "energy_kwh", "cost", "cost_low", "cost_high")
    )  # fmt: skip
    return Estimate(stage="small", model_flops_per_token=1.0, hardware_flops_per_token=1.0, memory=(PLANNED,), **none)  # type: ignore[arg-type]


def traced(rank_memory: RankMemory) -> TracedRank:
    return TracedRank(stage="small", rank=3, memory=rank_memory, micro_batches=2, operators=1234, seconds=1.0)


def shown(rank: TracedRank) -> str:
    out = io.StringIO()
    present_traced(estimate(), [rank], Console(file=out, width=100))
    return out.getvalue()


def test_kinds_meet_in_the_words_of_the_trace_without_the_frameworks_own_memory() -> None:
    comparison = compare(PLANNED, TRACED)
    assert comparison.error == 0
    assert {pair.kind: pair.planned_bytes for pair in comparison.kinds} == {
        "parameters": 10 * MIB, "gradients": 20 * MIB, "optimizer": 60 * MIB, "MLP": 75 * MIB, "attention": 5 * MIB,
        "logits": 30 * MIB,
    }  # fmt: skip


def test_the_kind_that_differs_is_named_when_more_than_two_percent_are_apart() -> None:
    text = shown(traced(memory({"MLP": 75 * MIB, "attention": 15 * MIB})))
    assert "rank 3 differs by -4.8%, most of it in attention: planned 5 MiB, traced 15 MiB" in text
    assert "agree" not in text


def test_agreement_is_said_too() -> None:
    text = shown(traced(memory({"MLP": 75 * MIB, "attention": 5 * MIB}, temporaries_bytes=2 * MIB)))
    assert "planned and traced agree within 2% on every rank" in text
    assert "2 micro-batches" in text


def test_programs_get_the_same() -> None:
    document = traced_to_json(estimate(), [traced(TRACED)])
    (rank,) = document["ranks"]
    assert (document["stage"], rank["rank"], rank["agrees"], rank["traced_bytes"]) == ("small", 3, True, 200 * MIB)
    assert rank["error_pct"] == pytest.approx(0.0)
    assert rank["kinds"][0] == {"kind": "parameters", "planned_bytes": 10 * MIB, "traced_bytes": 10 * MIB}


def test_a_rank_beside_one_that_differs_is_not_said_to_agree() -> None:
    out = io.StringIO()
    ranks = [traced(TRACED), replace(traced(memory({"MLP": 175 * MIB})), rank=4)]
    present_traced(estimate(), ranks, Console(file=out, width=100))
    assert "rank 4 differs" in out.getvalue()
    assert "agree within" not in out.getvalue()
