"""Does the cost model's memory agree with what the runtime's own code allocates: planned beside traced, by layout.

    python bench/traced_memory.py [--only TEXT] [--out bench/results]

Each row is the first or the last pipeline rank of an InternLM2 layout, as it would run on GPUs in bf16: the real
modules, schedule, gradient buffers and optimizer step without memory (`plan --trace-memory`). Needs no GPU.
"""

import argparse
import json
import os
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from trainwright.compiler.cost.against_trace import TOLERANCE, Comparison, compare
from trainwright.compiler.cost.case import Case, fuses_loss, parts_of
from trainwright.compiler.cost.memory import estimate_rank_memory
from trainwright.compiler.passes.place_stages import model_chunks
from trainwright.runtime.trace.trace import fullest_ranks, trace
from trainwright.spec.plan import (
    CheckpointPlan,
    Layout,
    LearningRatePlan,
    ModelPlan,
    OptimizerPlan,
    PhaseStage,
    Placement,
)
from trainwright.spec.traced import TracedRank, TraceJob

PRESETS = Path(__file__).parents[1] / "spec" / "presets"
SELECTIVE = {"recompute": "selective"}
LAYOUTS: tuple[tuple[str, int, dict[str, Any]], ...] = (
    ("1.8b", 4096, {"data": 1}),
    ("1.8b", 4096, {"data": 8}),
    ("1.8b", 4096, {"data": 8, "zero": 0, "micro_batch": 2}),
    ("1.8b", 4096, {"data": 8, "micro_batch": 4}),
    ("1.8b", 4096, {"data": 8, **SELECTIVE, "recompute_modules": ("core_attention",)}),
    ("1.8b", 4096, {"data": 8, **SELECTIVE, "recompute_modules": ("norm",)}),
    ("1.8b", 4096, {"data": 8, **SELECTIVE, "recompute_modules": ("activation",)}),
    ("1.8b", 4096, {"data": 8, **SELECTIVE, "recompute_modules": ("norm", "activation")}),
    ("1.8b", 4096, {"data": 8, **SELECTIVE, "recompute_modules": ("mlp",)}),
    ("1.8b", 4096, {"data": 8, **SELECTIVE, "recompute_modules": ("norm", "mlp")}),
    ("1.8b", 4096, {"data": 8, "recompute": "full", "micro_batch": 4}),
    ("1.8b", 32768, {"data": 64, "recompute": "full"}),
    ("1.8b", 32768, {"tensor": 4, "data": 16}),
    ("7b", 4096, {"tensor": 2, "data": 64}),
    ("7b", 4096, {"data": 64, "zero_group": 8}),
    ("7b", 4096, {"tensor": 2, "pipeline": 2, "data": 16, "zero_group": 4}),
    ("7b", 4096, {"tensor": 2, "sequence_parallel": False, "data": 4}),
    ("7b", 4096, {"tensor": 4, "data": 2, "zero": 0}),
    ("7b", 4096, {"tensor": 8, "data": 128, "micro_batch": 2}),
    ("7b", 4096, {"pipeline": 4, "data": 8}),
    ("7b", 4096, {"pipeline": 4, "data": 8, "recompute": "full", "recompute_layers": 3}),
    ("7b", 4096, {"tensor": 2, "pipeline": 2, "data": 32, **SELECTIVE, "recompute_modules": ("norm", "activation")}),
    ("7b", 4096, {"tensor": 2, "pipeline": 4, "virtual_pipeline": 2, "data": 16}),
    ("7b", 4096, {"tensor": 2, "pipeline": 2, "virtual_pipeline": 2, "data": 2, "recompute": "full", "micro_batch": 2}),
    ("7b", 32768, {"tensor": 8, "data": 16}),
    ("7b", 32768, {"tensor": 4, "pipeline": 2, "data": 16, "recompute": "full"}),
    ("20b", 4096, {"tensor": 2, "pipeline": 4, "data": 128}),
    ("20b", 4096, {"tensor": 4, "pipeline": 2, "data": 64, "zero": 0}),
    ("20b", 4096, {"tensor": 8, "data": 16}),
    ("20b", 4096, {"tensor": 8, "sequence_parallel": False, "data": 2}),
    ("20b", 4096, {"tensor": 8, "pipeline": 2, "virtual_pipeline": 2, "data": 8, "micro_batch": 2}),
    ("20b", 4096, {"tensor": 4, "pipeline": 4, "virtual_pipeline": 2, "data": 64, **SELECTIVE,
                   "recompute_modules": ("norm", "mlp")}),
    ("20b", 32768, {"tensor": 8, "pipeline": 4, "data": 32, **SELECTIVE, "recompute_modules": ("norm", "activation")}),
    ("20b", 32768, {"tensor": 8, "pipeline": 2, "data": 8, "recompute": "full", "recompute_layers": 12}),
    ("1.8b", 32768, {"context": 4, "data": 8}),
    ("1.8b", 32768, {"context": 4, "data": 8, "context_exchange": "all_to_all"}),
    ("7b", 32768, {"tensor": 2, "context": 4, "data": 8, "context_exchange": "ring", "recompute": "full"}),
    ("7b", 262144, {"tensor": 2, "context": 16, "data": 4, "recompute": "full"}),
    ("1.8b", 4096, {"data": 8, "loss": "fused"}),
    ("1.8b", 32768, {"tensor": 2, "pipeline": 2, "data": 16, "recompute": "full", "loss": "fused"}),
    ("7b", 32768, {"tensor": 8, "pipeline": 2, "data": 16, "recompute": "full", "loss": "fused"}),
    ("20b", 32768, {"tensor": 4, "pipeline": 4, "data": 8, "recompute": "full", "loss": "fused"}),
)  # fmt: skip


def model(size: str) -> ModelPlan:
    """The dimensions of the preset."""
    table = tomllib.loads((PRESETS / f"internlm2-{size}.toml").read_text(encoding="utf-8"))["model"]
    return ModelPlan(**table, head_size=table["hidden_size"] // table["heads"], parameters=0)


def _loss(sizes: ModelPlan, axes: Layout, sequence_length: int, changes: dict[str, Any]) -> Literal["logits", "fused"]:
    """As a plan's: by size, where the changes do not say."""
    tokens = sequence_length * axes.micro_batch / axes.context
    return "fused" if fuses_loss(changes.get("loss", "auto"), tokens, sizes.vocab_size / axes.tensor) else "logits"


def layout(changes: dict[str, Any]) -> Layout:
    """Sequence-parallel, ZeRO 1 over the whole data axis, 16 micro-batches of one sequence, but for `changes`."""
    values: dict[str, Any] = {
        "tensor": 1, "pipeline": 1, "virtual_pipeline": 1, "context": 1, "data": 1, "zero": 1, "micro_batch": 1,
        "micro_batches": 16, "recompute": "none",
        "sequence_parallel": changes.get("tensor", 1) > 1,
        "zero_group": changes.get("data", 1),
        "schedule": "interleaved" if "virtual_pipeline" in changes else "1f1b",
    }  # fmt: skip
    return Layout(**{**values, **{key: value for key, value in changes.items() if key != "loss"}})


def phase(size: str, sequence_length: int, changes: dict[str, Any]) -> PhaseStage:
    """A phase of the model under the layout; what memory does not depend on is of no meaning."""
    sizes, axes = model(size), layout(changes)
    return PhaseStage(
        name=words(size, sequence_length, changes),
        needs=(),
        model=sizes,
        start_from=None,
        index=0,
        seed=0,
        precision="bf16",
        tokens=0,
        steps=1,
        tokens_per_step=0,
        sequence_length=sequence_length,
        sequences_per_step=0,
        mixture={"all": 1.0},
        rope_base=1e6,
        learning_rate=LearningRatePlan(peak=1e-3, final=1e-4, warmup_steps=0, decay="cosine", decay_steps=1, offset=0),
        optimizer=OptimizerPlan(kind="adamw", betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, clip=1.0),
        attention="auto",
        loss=_loss(sizes, axes, sequence_length, changes),
        layout=axes,
        placement=Placement(
            nodes=-(-axes.world_size // 8), ranks_per_node=min(8, axes.world_size), chunks=model_chunks(sizes, axes)
        ),
        checkpoint=CheckpointPlan(every_steps=None, every_seconds=None, keep=1),
        log_every=1,
    )


def words(size: str, sequence_length: int, changes: dict[str, Any]) -> str:
    """A layout in one line."""
    short = {
        "tensor": "TP",
        "pipeline": "PP",
        "virtual_pipeline": "VPP",
        "context": "CP",
        "data": "DP",
        "micro_batch": "mb",
    }
    axes = [f"{short[key]} {value}" for key, value in changes.items() if key in short]
    if changes.get("sequence_parallel") is False:
        axes.append("no SP")
    if "context_exchange" in changes:
        axes.append(changes["context_exchange"].replace("_", "-"))
    if "loss" in changes:
        axes.append(f"loss {changes['loss']}")
    group = f" over {changes['zero_group']}" if "zero_group" in changes else ""
    axes.append("ZeRO 0" if changes.get("zero") == 0 else f"ZeRO 1{group}")
    if "recompute" in changes:
        what = changes.get("recompute_modules") or (
            [f"{changes['recompute_layers']} layers"] if "recompute_layers" in changes else ["full"]
        )
        axes.append(f"recompute {'+'.join(what)}")
    return f"{size} {sequence_length // 1024}k, {', '.join(axes)}"


def row(stage: PhaseStage, rank: TracedRank, comparison: Comparison) -> dict[str, Any]:
    return {
        "layout": stage.name,
        "ranks": stage.layout.world_size,
        "rank": rank.rank,
        "pipeline_rank": rank.memory.pipeline_rank,
        "planned_gib": round(comparison.planned_bytes / 2**30, 3),
        "traced_gib": round(comparison.traced_bytes / 2**30, 3),
        "error_pct": round(100 * comparison.error, 3),
        "differs_most_in": comparison.worst.kind,
        "traced_peak": rank.memory.peak,
        "operators": rank.operators,
        "seconds": round(rank.seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="TEXT", help="layouts whose line holds this; writes no file")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    jobs = []
    for layout_ in LAYOUTS:
        stage = phase(*layout_)
        if arguments.only in stage.name:
            ranks = fullest_ranks(stage.layout)
            jobs += [TraceJob(stage=stage, rank=rank, device="cuda") for rank in sorted({ranks[0], ranks[-1]})]
    rows = []
    for job, rank in zip(jobs, trace(jobs), strict=True):
        pipeline_rank = rank.memory.pipeline_rank
        planned = estimate_rank_memory(Case.of(job.stage), parts_of(job.stage)[pipeline_rank])
        rows.append(row(job.stage, rank, compare(planned, rank.memory)))
        print("{layout:72} pp {pipeline_rank}  {planned_gib:7.2f}  {traced_gib:7.2f} GiB  {error_pct:+6.2f} %  "
              "{traced_peak}, {seconds} s".format(**rows[-1]), flush=True)  # fmt: skip
    errors = [abs(each["error_pct"]) for each in rows]
    within = sum(error <= 100 * TOLERANCE for error in errors)
    layouts = len({each["layout"] for each in rows})
    print(f"{layouts} layouts, {len(rows)} ranks: {within} within {TOLERANCE:.0%}, worst {max(errors):.2f} %")
    if not arguments.only:
        cores = os.cpu_count()
        out = arguments.out / f"{cores}-core-{os.uname().machine}" / f"{datetime.now(UTC):%Y-%m-%d}-traced-memory.json"
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps({"worst_error_pct": max(errors), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
