"""A trace tells what the real step allocates, and the cost model tells what a trace does."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.runtime.trace.stages import phase

from trainwright.compiler.cost.against_trace import compare
from trainwright.compiler.cost.case import Case, parts_of
from trainwright.compiler.cost.memory import estimate_rank_memory
from trainwright.runtime.trace.trace import TraceError, fullest_ranks, passes, trace
from trainwright.spec.traced import TracedRank, TraceJob

LAYOUTS: list[dict[str, Any]] = [
    {"tensor": 2, "pipeline": 2, "data": 256, "zero_group": 8, "micro_batches": 4},
    {"tensor": 2, "zero": 0, "data": 2, "micro_batch": 2},
    {"tensor": 2, "pipeline": 2, "loss": "fused", "micro_batch": 8},
    {"loss": "fused", "micro_batch": 8, "recompute": "full"},
    {"tensor": 2, "pipeline": 2, "recompute": "selective", "recompute_modules": ("norm", "activation")},
    {"pipeline": 2, "virtual_pipeline": 2, "micro_batches": 4, "recompute": "full", "recompute_layers": 1},
    {"context": 2, "data": 2},
    {"context": 4, "context_exchange": "all_to_all"},
    {"context": 4, "context_exchange": "ring", "context_heads": 2},
    {"context": 8, "context_heads": 2, "loss": "fused"},
]


def jobs(changes: dict[str, Any]) -> list[TraceJob]:
    stage = phase(**changes)
    return [TraceJob(stage=stage, rank=rank, device="cuda") for rank in fullest_ranks(stage.layout)]


def check(job: TraceJob, rank: TracedRank) -> None:
    case = Case.of(job.stage, on_cpu=job.device == "cpu")
    planned = estimate_rank_memory(case, parts_of(job.stage)[rank.memory.pipeline_rank])
    comparison = compare(planned, rank.memory)
    assert comparison.agrees, (job.stage.layout, comparison)


@pytest.mark.slow
def test_planned_and_traced_memory_agree() -> None:
    wanted = [job for changes in LAYOUTS for job in jobs(changes)]
    for job, rank in zip(wanted, trace(wanted), strict=True):
        check(job, rank)


@pytest.mark.slow
def test_without_memory_the_same_is_allocated_as_with() -> None:
    wanted = [
        TraceJob(stage=stage, rank=0, device="cpu")
        for stage in (
            phase("fp32"),
            phase("bf16", recompute="selective", recompute_modules=("norm", "activation")),
            phase("bf16", loss="fused"),
        )
    ]
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("real_step.py"))],
        input=msgspec.json.encode(wanted),
        check=True,
        stdout=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    for job, real, rank in zip(wanted, json.loads(done.stdout), trace(wanted), strict=True):
        check(job, rank)
        assert rank.memory.allocated_bytes == sum(real.values())
        assert rank.memory.logits_bytes == real["logits"]


def test_a_rank_of_each_pipeline_rank_is_traced_with_as_many_passes_as_reach_its_peak() -> None:
    layout = phase(tensor=2, pipeline=4, data=8, micro_batches=64).layout
    assert fullest_ranks(layout) == [0, 16, 32, 48]
    assert [passes(layout, rank) for rank in range(4)] == [5, 4, 3, 2]
    assert passes(phase(pipeline=2, virtual_pipeline=2, micro_batches=3).layout, 0) == 3


def test_what_the_runtime_cannot_run_cannot_be_traced() -> None:
    with pytest.raises(
        TraceError, match="rank 0 of `small`: the runtime cannot run this: weight parallelism is not built yet"
    ):
        list(trace([TraceJob(stage=phase(weight=2), rank=0, device="cuda")]))
