"""A made-up run's folder, laid out as the executor lays out a real one: nothing in it was ever trained."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.runtime.report import aligned

from trainwright.spec.artefact import StageResult, encode_result, needs_of, stage_link, store_folder
from trainwright.spec.plan import (
    AnyStage,
    Assumption,
    CheckpointPlan,
    Estimate,
    EvaluateStage,
    ExportStage,
    Hardware,
    IngestStage,
    Layout,
    LearningRatePlan,
    ModelPlan,
    OptimizerPlan,
    PerplexityPlan,
    PhaseStage,
    Placement,
    Plan,
    RankMemory,
    SamplesPlan,
    SourcePlan,
    StepTime,
    TokenizerStage,
    TokenizeStage,
    encode,
    fingerprint,
    identity,
)

SOURCES = {"novels": ("en", "public domain"), "poems": ("zh", "public domain"), "stdlib": ("python", "PSF-2.0")}
PHASES = {"short": (120, 128), "long": (16, 512), "enhance": (8, 512)}
MODEL = ModelPlan(
    layers=2, hidden_size=64, heads=4, kv_heads=2, head_size=16, ffn_size=176, vocab_size=512, norm_eps=1e-5,
    init_std=0.02, attention_bias=False, tie_embeddings=False, parameters=157_760,
)  # fmt: skip
LAYOUT = Layout(
    tensor=1, pipeline=1, virtual_pipeline=1, context=1, data=2, sequence_parallel=False, zero=1, zero_group=2,
    micro_batch=4, micro_batches=4, recompute="none", schedule="1f1b",
)  # fmt: skip


def _source(name: str, language: str, license_: str) -> SourcePlan:
    return SourcePlan(
        name=name, path=f"corpus/{name}.jsonl.gz", kind="text", language=language, license=license_, format="auto",
        text_key="text", include=(), exclude=(), max_size_bytes=None, files=1, size_bytes=1000, digest="0",
    )  # fmt: skip


def _phase(name: str, index: int, before: str | None, steps: int, length: int) -> PhaseStage:
    return PhaseStage(
        name=name, needs=("tokenize", before) if before else ("tokenize",), model=MODEL, start_from=before, index=index,
        seed=1024, precision="fp32", tokens=steps * 4096, steps=steps, tokens_per_step=4096, sequence_length=length,
        sequences_per_step=4096 // length, mixture={"novels": 0.6, "poems": 0.15, "stdlib": 0.25}, rope_base=50_000.0,
        learning_rate=LearningRatePlan(
            peak=3e-3, final=3e-4, warmup_steps=10, decay="cosine", decay_steps=steps, offset=0
        ),
        optimizer=OptimizerPlan(kind="adamw", betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, clip=1.0),
        attention="auto", layout=LAYOUT, placement=Placement(nodes=1, ranks_per_node=2, chunks=()),
        checkpoint=CheckpointPlan(every_steps=50, every_seconds=None, keep=2), log_every=10,
    )  # fmt: skip


MEMORY = RankMemory(
    pipeline_rank=0, parameters_bytes=315_520, gradients_bytes=631_040, optimizer_bytes=946_560,
    activations_bytes=40_000_000, activations={"attention": 40_000_000}, logits_bytes=8_000_000,
    communication_bytes=0, temporaries_bytes=0, framework_bytes=0, total_bytes=49_893_120,
    peak="the first backward pass", binds="activations",
)  # fmt: skip


def _estimate(stage: str) -> Estimate:
    step = StepTime(
        time_s=0.12,
        low_s=0.11,
        high_s=0.14,
        parts={"matmul": 0.08, "attention": 0.02, "host": 0.02},
        chunks=(),
        transfer_s=0.0,
        bubble=0.0,
    )
    return Estimate(
        stage=stage, model_flops_per_token=1.2e6, hardware_flops_per_token=1.2e6, memory=(MEMORY,),
        capacity_bytes=None, step=step, tokens_per_s=34_133.0, mfu=None, goodput=None, duration_s=14.4,
        duration_low_s=13.2, duration_high_s=16.8, gpu_hours=None, energy_kwh=None, cost=None, cost_low=None,
        cost_high=None,
    )  # fmt: skip


def _stages() -> list[AnyStage]:
    sources = tuple(_source(name, *rest) for name, rest in SOURCES.items())
    stages: list[AnyStage] = [
        IngestStage(name="ingest", needs=(), sources=sources, held_out=0.05, seed=1024, workers=0),
        TokenizerStage(
            name="tokenizer", needs=("ingest",), path=None, digest=None, algorithm="bpe", vocab_size=512,
            mixture={"novels": 1.0}, byte_fallback=True, split_digits=True, character_coverage=0.9995, spare_tokens=10,
            sample_bytes=1 << 20, seed=1024, workers=0,
        ),
        TokenizeStage(
            name="tokenize", needs=("ingest", "tokenizer"), sources=tuple(SOURCES), vocab_size=512, workers=0
        ),
    ]  # fmt: skip
    before = None
    for index, (name, (steps, length)) in enumerate(PHASES.items()):
        stages.append(_phase(name, index, before, steps, length))
        before = name
    for name in PHASES:
        stages.append(
            EvaluateStage(
                name=f"evaluate-{name}", needs=("tokenize", "tokenizer", name), of=name,
                perplexity=PerplexityPlan(sources=tuple(SOURCES), sequence_length=512, batch=4),
                samples=SamplesPlan(prompts=("It was", "春"), max_tokens=64, temperature=0.8, top_p=0.9, seed=1024)
                if name == "enhance" else None,
            )
        )  # fmt: skip
    export = ExportStage(
        name="export-enhance", needs=("tokenizer", "enhance"), of="enhance", formats=("huggingface",), precision="fp32",
        max_positions=512, rope_base=1e6,
    )  # fmt: skip
    return [*stages, export]


def make_plan(*more: AnyStage, estimates: Sequence[Estimate] = ()) -> Plan:
    """Pre-training, and these stages after it."""
    done: dict[str, str] = {}
    stages = []
    for stage in [*_stages(), *more]:
        done[stage.name] = fingerprint(stage, {need: done[need] for need in stage.needs})
        stages.append(msgspec.structs.replace(stage, fingerprint=done[stage.name]))
    why = Assumption(key="model.norm_eps", value="1e-05", origin="default", why="InternLM2's published value")
    return Plan(
        version=1, compiler="trainwright 0.1.0", name="made-up", root="../..",
        flops_convention="model FLOPs, causal attention counted once, recomputation not counted",
        hardware=Hardware(
            name="cpu", device="cpu", nodes=1, gpus_per_node=2, memory_bytes=None, peak_flops=None,
            price_per_gpu_hour=None,
        ),
        stages=tuple(stages), estimates=(*(_estimate(name) for name in ("short", "long")), *estimates),
        assumptions=(why,), notices=(),
    )  # fmt: skip


@dataclass
class MadeUpRun:
    """Writes the folder piece by piece; a test leaves out, breaks or adds what it is about."""

    folder: Path
    plan: Plan = field(default_factory=make_plan)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        (self.folder / "plan.json").write_bytes(encode(self.plan))

    def path(self, stage: str) -> Path:
        return store_folder(self.folder, self.plan.stage(stage))

    def event(self, event: str, second: int, *, level: str = "info", **fields: Any) -> None:
        ts = f"2026-11-20T18:{second // 60:02d}:{second % 60:02d}.000Z"
        with open(self.folder / "events.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps({"ts": ts, "event": event, "level": level, **fields}) + "\n")

    def begin(self, stage: str) -> None:
        self.path(stage).mkdir(parents=True)
        (self.path(stage) / "identity.json").write_bytes(encode_result(self._result(stage)))
        link = stage_link(self.folder, stage)
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(Path("../store") / self.path(stage).name)

    def finish(self, stage: str, seconds: float = 4.0, **summary: Any) -> None:
        result = msgspec.structs.replace(
            self._result(stage), finished="2026-11-20T18:01:00.000Z", summary={"seconds": seconds, **summary}
        )
        (self.path(stage) / "result.json").write_bytes(encode_result(result))

    def write(self, stage: str, name: str, data: object) -> None:
        path = self.path(stage) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")

    def metrics(self, stage: str, steps: int, start: float = 6.2) -> None:
        rows = (_row(stage, step, start) for step in range(1, steps + 1))
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (self.path(stage) / "metrics.jsonl").write_text(text, encoding="utf-8")

    def log(self, stage: str, lines: Sequence[str]) -> None:
        path = self.path(stage) / "logs" / "rank_00000.log"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def data_stages(self) -> None:
        """Ingest, tokenizer and tokenise are done."""
        figures = {
            "files": 1,
            "train": {"documents": 1140, "bytes": 2_280_000},
            "held_out": {"documents": 60, "bytes": 120_000},
            "dropped_bytes": 3000,
            "bad_rows": {"not JSON": 2},
            "first_bad_rows": ["novels.jsonl.gz:17: not JSON"],
            "duplicates": {"novels": 7},
        }
        counts = {"train": {"documents": 1140, "tokens": 700_000, "bytes": 2_280_000},
                  "held_out": {"documents": 60, "tokens": 40_000, "bytes": 120_000}}  # fmt: skip
        for stage in ("ingest", "tokenizer", "tokenize"):
            self.begin(stage)
            self.finish(stage, 3.5, **({"sources": dict.fromkeys(SOURCES, figures)} if stage == "ingest" else {}))
        self.write("tokenize", "counts.json", dict.fromkeys(SOURCES, counts))

    def phase(self, stage: str, start: float = 6.2) -> None:
        """The phase is done."""
        self.begin(stage)
        self.metrics(stage, PHASES[stage][0], start)
        self.finish(stage, 15.0, parameters=MODEL.parameters)

    def evaluate(self, stage: str, bits: float, samples: Sequence[tuple[str, str]] = ()) -> None:
        """The evaluation of that phase is done."""
        name = f"evaluate-{stage}"
        self.begin(name)
        scores = {
            source: {
                "documents": 60, "tokens": 40_000, "bytes": 120_000, "nats_per_token": bits * 2.1,
                "perplexity": math.exp(bits * 2.1), "bits_per_byte": bits + 0.1 * index, "gzip_bits_per_byte": 2.9,
                "xz_bits_per_byte": 1.75,
            }
            for index, source in enumerate(SOURCES)
        }  # fmt: skip
        self.write(name, "scores.json", scores)
        if samples:
            self.samples(stage, samples)
        self.finish(name, 2.0)

    def samples(self, stage: str, samples: Sequence[tuple[str, str]]) -> None:
        """That phase's evaluation wrote these prompts and continuations."""
        rows = [{"prompt": prompt, "text": text} for prompt, text in samples]
        self.write(f"evaluate-{stage}", "samples.json", {"temperature": 0.8, "samples": rows})

    def all_stages(self) -> None:
        """Every stage is done, and the events say so."""
        self.event("run_started", 0)
        self.data_stages()
        for index, stage in enumerate(PHASES):
            self.phase(stage, 6.2 - 1.5 * index)
            self.evaluate(stage, 2.0 - 0.2 * index, SAMPLES if stage == "enhance" else ())
        self.begin("export-enhance")
        self.finish("export-enhance", 1.0)
        self.event("run_ended", 92, exit_code=0)
        lineage = {
            "trainwright": "0.1.0", "python": "3.12.1", "platform": "Linux", "host": "box", "cores": 2,
            "command": ["trainwright", "run", "examples/tiny.toml", "-y"], "packages": {"torch": "2.13.0"},
        }  # fmt: skip
        (self.folder / "lineage.json").write_text(json.dumps(lineage), encoding="utf-8")
        (self.folder / "spec.toml").write_text('[run]\nname = "made-up"\n', encoding="utf-8")

    def _result(self, stage: str) -> StageResult:
        node = self.plan.stage(stage)
        return StageResult(
            stage=stage, fingerprint=node.fingerprint, identity=identity(node), needs=needs_of(self.plan, node),
            started="2026-11-20T18:00:00.000Z",
        )  # fmt: skip


SAMPLES = [
    ("It was", " the best of times,\n  it was <b>the</b> worst"),
    ("春", "眠不觉晓，处处闻啼鸟。\n夜来风雨声，花落知多少。"),
    ("def ", "main(argv=None):\n\tif argv is None:\n\t\targv = sys.argv[1:]\n\treturn 0"),
]


_SECOND_STEP = {
    "memory/parameters_gb": 0.0003,
    "memory/gradients_gb": 0.0006,
    "memory/optimizer_gb": 0.001,
    "memory/step_gb": 0.047,
    "memory/allocated_gb": 0.05,
    "profile/matmul_ms": 70.0,
    "profile/attention_ms": 10.0,
    "profile/other_ms": 20.0,
}


def _row(stage: str, step: int, start: float) -> dict[str, object]:
    loss = start * math.exp(-step / 90) + 0.08 * math.sin(step * 1.7)
    return {
        "step": step,
        "stage": stage,
        "train/loss": loss,
        "train/lr": 3e-3 * min(1.0, step / 10),
        "train/grad_norm": 0.4 + 2 / step,
        "train/consumed_tokens": step * 4096,
        "perf/tgs": 20_000 - 8000 / step,
        "perf/step_time_ms": 100.0,
        "perf/tflops_per_gpu": 0.02,
        "perf/data_wait_pct": 0.5,
        "memory/max_active_gb": 0.06,
        **(_SECOND_STEP if step == 2 else {}),
        **{f"train_loss_by_source/{name}": loss + 0.3 * (index - 0.8) for index, name in enumerate(SOURCES)},
    }


@pytest.fixture
def run(tmp_path: Path) -> MadeUpRun:
    """A run's folder with nothing but its plan."""
    return MadeUpRun(tmp_path / "runs" / "made-up")


@pytest.fixture
def run_to_align(tmp_path: Path) -> MadeUpRun:
    """A run's folder with nothing but its plan, of pre-training and alignment."""
    more, estimates = aligned.stages(MODEL, LAYOUT, "enhance"), aligned.estimates(MEMORY)
    return MadeUpRun(tmp_path / "runs" / "aligned", make_plan(*more, estimates=estimates))


@pytest.fixture
def aligned_run(run_to_align: MadeUpRun) -> MadeUpRun:
    """All of its stages are done."""
    run_to_align.all_stages()
    aligned.write_alignment(run_to_align)
    return run_to_align
