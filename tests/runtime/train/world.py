"""One process of a small world that trains a toy model: `python -m tests.runtime.train.world RANK WORLD_SIZE JOB.json`.

Run by the fixture `world` (conftest.py), not collected. A job is {"do": "losses" | "phase", ...}; rank 0 writes its
result beside the job. Processes meet at a file, so that no port is needed.
"""

import json
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from trainwright.runtime import host

host.install()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from msgspec import structs  # noqa: E402

from trainwright.runtime.train import loop, parallel, step  # noqa: E402
from trainwright.runtime.train.language import LanguageObjective  # noqa: E402
from trainwright.runtime.train.model import model_of  # noqa: E402
from trainwright.runtime.train.optimizer import build_optimizer, set_learning_rate, wrap  # noqa: E402
from trainwright.spec.plan import (  # noqa: E402
    CheckpointPlan,
    Estimate,
    Layout,
    LearningRatePlan,
    ModelChunk,
    ModelPlan,
    OptimizerPlan,
    PhaseStage,
    Placement,
    RankMemory,
    StepTime,
)

LENGTH = 32
SEQUENCES = 8


def layout(changes: dict[str, Any]) -> Layout:
    """One process, changed; micro-batches fill the step of 8 sequences."""
    one = Layout(
        tensor=1, pipeline=1, virtual_pipeline=1, context=1, data=1, sequence_parallel=False, zero=1, zero_group=1,
        micro_batch=2, micro_batches=4, recompute="none", schedule="1f1b",
    )  # fmt: skip
    other = structs.replace(one, **changes)
    micro_batches = SEQUENCES // other.data // other.micro_batch
    return structs.replace(other, zero_group=changes.get("zero_group", other.data), micro_batches=micro_batches)


def model(changes: dict[str, Any]) -> ModelPlan:
    toy = ModelPlan(
        layers=4, hidden_size=64, heads=4, kv_heads=2, head_size=16, ffn_size=160, vocab_size=256, norm_eps=1e-5,
        init_std=0.02, attention_bias=False, tie_embeddings=False, parameters=0,
    )  # fmt: skip
    return structs.replace(toy, **changes)


def phase(job: dict[str, Any]) -> PhaseStage:
    run_layout = layout({key: value for key, value in job["layout"].items() if key != "loss"})
    per_chunk = 4 // (run_layout.pipeline * run_layout.virtual_pipeline)
    chunks = [
        ModelChunk(
            pipeline_rank=rank, chunk=chunk, embedding=(rank, chunk) == (0, 0),
            first_layer=(chunk * run_layout.pipeline + rank) * per_chunk,
            last_layer=(chunk * run_layout.pipeline + rank + 1) * per_chunk,
            head=(rank, chunk) == (run_layout.pipeline - 1, run_layout.virtual_pipeline - 1),
        )
        for chunk in range(run_layout.virtual_pipeline)
        for rank in range(run_layout.pipeline)
    ]  # fmt: skip
    return PhaseStage(
        name="toy",
        needs=(),
        model=model(job.get("model", {})),
        start_from="before" if job.get("start") else None,
        index=0,
        seed=1,
        precision=job.get("precision", "fp32"),
        tokens=job["steps"] * SEQUENCES * LENGTH,
        steps=job["steps"],
        tokens_per_step=SEQUENCES * LENGTH,
        sequence_length=LENGTH,
        sequences_per_step=SEQUENCES,
        mixture={"prose": 0.5, "code": 0.5},
        rope_base=10_000.0,
        learning_rate=LearningRatePlan(
            peak=3e-3, final=3e-4, warmup_steps=2, decay="cosine", decay_steps=job["steps"], offset=0
        ),
        optimizer=OptimizerPlan(kind="adamw", betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, clip=1.0),
        attention="auto",
        loss=job["layout"].get("loss", "logits"),
        layout=run_layout,
        placement=Placement(nodes=1, ranks_per_node=run_layout.world_size, chunks=tuple(chunks)),
        checkpoint=CheckpointPlan(every_steps=job.get("every_steps"), every_seconds=None, keep=2),
        log_every=5,
    )


def estimate(stage: PhaseStage, job: dict[str, Any]) -> Estimate | None:
    """Planned figures, if the job has some: {"step_s": ..., "memory_bytes": ...}."""
    if "planned" not in job:
        return None
    planned = job["planned"]
    memory = RankMemory(
        pipeline_rank=0, parameters_bytes=0, gradients_bytes=0, optimizer_bytes=0, activations_bytes=0, activations={},
        logits_bytes=0, communication_bytes=0, temporaries_bytes=0, framework_bytes=1000,
        total_bytes=planned["memory_bytes"] + 1000, peak="", binds="",
    )  # fmt: skip
    time_s = planned["step_s"]
    step_time = StepTime(time_s=time_s, low_s=time_s, high_s=time_s, parts={}, chunks=(), transfer_s=0.0, bubble=0.0)
    return Estimate(
        stage=stage.name, model_flops_per_token=1.0, hardware_flops_per_token=1.0, memory=(memory,),
        capacity_bytes=None, step=step_time, tokens_per_s=None, mfu=None, goodput=None, duration_s=None,
        duration_low_s=None, duration_high_s=None, gpu_hours=None, energy_kwh=None, cost=None, cost_low=None,
        cost_high=None,
    )  # fmt: skip


class ToyBatches:
    """Sequences that can be learned, a pure function of step and place, with a document that begins inside."""

    def sequences(self, step: int, start: int, stop: int) -> SimpleNamespace:
        rows = [np.random.default_rng([step, place]) for place in range(start, stop)]
        sources = np.arange(start, stop) % 2
        tokens = [
            np.cumsum(row.integers(1, 3 + source, LENGTH + 1)) % 256 for row, source in zip(rows, sources, strict=True)
        ]
        starts = [np.array([0, row.integers(1, LENGTH + 1)]) for row in rows]
        return SimpleNamespace(tokens_BS1=np.stack(tokens).astype(np.int64), sources_B=sources, starts=starts)


def objective(stage: PhaseStage) -> LanguageObjective:
    return LanguageObjective(ToyBatches(), sorted(stage.mixture), stage.layout)


def losses(stage: PhaseStage) -> list[list[float]]:
    """[loss, gradient norm] of every step, without the loop's surroundings."""
    chunks = model_of(stage, seed=stage.seed)
    wrapped = wrap(chunks, stage.layout)
    optimizer = build_optimizer(wrapped, stage.optimizer, stage.layout, stage.precision)
    set_learning_rate(optimizer, 3e-3)
    toy = objective(stage)
    result = []
    for number in range(stage.steps):
        figures_F, norm = step.train_step(wrapped, optimizer, toy, toy.micro_batches(number))
        figures = step.over_all_ranks(figures_F).tolist()
        result.append([toy.metrics(figures)["train/loss"], norm])
    return result


def main() -> None:
    torch.set_num_threads(1)
    rank, world_size, path = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    job = json.loads(path.read_text())
    results: list[Any] = []
    for number, changes in enumerate(job["layouts"]):
        stage = phase({**job, "layout": changes})
        meeting = f"file://{path.with_suffix(f'.{number}.meeting')}"
        parallel.initialize(stage.layout, seed=1, rank=rank, world_size=world_size, init_method=meeting, timeout_s=300)
        if job["do"] == "losses":
            results.append(losses(stage))
        else:
            calls = 0

            def should_stop() -> bool:
                nonlocal calls
                calls += 1
                if calls == job.get("kill_after"):
                    os.kill(os.getpid(), signal.SIGKILL)
                return calls == job.get("stop_after") and rank == world_size - 1

            out = Path(job["out"][number])
            start = Path(job["start"]) if job.get("start") else None
            summary = loop.run(
                stage, objective(stage), estimate=estimate(stage, job), start=start, out=out, run_folder=out,
                should_stop=should_stop,
            )  # fmt: skip
            results.append(summary.to_dict())
        parallel.finalize()
    if rank == 0:
        path.with_suffix(".result").write_text(json.dumps(results))


if __name__ == "__main__":
    main()
