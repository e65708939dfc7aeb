"""A plan with figures made up by hand: 7B on 64 GPUs, one pipelined phase and one that is not, text from far away."""

from trainwright.compiler.review import Verdict
from trainwright.spec.device import HardwareFile, Link, Links, Peak
from trainwright.spec.plan import (
    AnyStage,
    Assumption,
    CheckpointPlan,
    ChunkTime,
    Estimate,
    EvaluateStage,
    ExportStage,
    Goodput,
    Hardware,
    IngestStage,
    Layout,
    LearningRatePlan,
    ModelChunk,
    ModelPlan,
    Notice,
    OptimizerPlan,
    PerplexityPlan,
    PhaseStage,
    Placement,
    Plan,
    RankMemory,
    SourcePlan,
    StepTime,
    TokenizerStage,
    TokenizeStage,
)

GB = 10**9
SPREAD = 0.1  # half of each interval, as a share

MODEL = ModelPlan(
    layers=32, hidden_size=4096, heads=32, kv_heads=8, head_size=128, ffn_size=14_336, vocab_size=92_544,
    norm_eps=1e-5, init_std=0.02, attention_bias=False, tie_embeddings=False, parameters=7_737_708_544,
)  # fmt: skip
LINKS = Links(device=Link(bytes_per_s=200e9), network=Link(bytes_per_s=25e9), domain=8)
FIGURES = HardwareFile(name="A800 80GB", peak_flops=Peak(bf16=312e12), power_watts=400.0, links=LINKS)
HARDWARE = Hardware(
    name="a800-80gb", device="cuda", nodes=8, gpus_per_node=8, memory_bytes=85 * GB, peak_flops=312e12,
    price_per_gpu_hour=1.8, figures=FIGURES,
)  # fmt: skip
PIPELINED = Layout(
    tensor=2, pipeline=4, virtual_pipeline=2, context=1, data=8, sequence_parallel=True, zero=1, zero_group=4,
    micro_batch=1, micro_batches=16, recompute="selective", schedule="interleaved",
)  # fmt: skip
LONG = Layout(
    tensor=2, pipeline=1, virtual_pipeline=1, context=8, data=4, sequence_parallel=True, zero=1, zero_group=4,
    micro_batch=1, micro_batches=4, recompute="full", schedule="1f1b",
)  # fmt: skip


def chunks_of(layout: Layout) -> tuple[ModelChunk, ...]:
    """Megatron's assignment: chunk c of rank r is block c * pipeline + r."""
    blocks = layout.pipeline * layout.virtual_pipeline
    size = MODEL.layers // blocks
    return tuple(
        ModelChunk(pipeline_rank=block % layout.pipeline, chunk=block // layout.pipeline, first_layer=block * size,
                   last_layer=(block + 1) * size, embedding=block == 0, head=block == blocks - 1)
        for block in range(blocks)
    )  # fmt: skip


def phase(name: str, layout: Layout, sequence_length: int, steps: int, start_from: str | None) -> PhaseStage:
    sequences = layout.data * layout.micro_batches * layout.micro_batch
    return PhaseStage(
        name=name,
        needs=("tokenize",) if start_from is None else ("tokenize", start_from),
        fingerprint=f"{len(name):032x}",
        model=MODEL,
        start_from=start_from,
        index=0 if start_from is None else 1,
        seed=1024,
        precision="bf16",
        tokens=steps * sequences * sequence_length,
        steps=steps,
        tokens_per_step=sequences * sequence_length,
        sequence_length=sequence_length,
        sequences_per_step=sequences,
        mixture={"web": 0.7, "code": 0.3},
        rope_base=50_000.0,
        learning_rate=LearningRatePlan(
            peak=3e-4,
            final=3e-5,
            warmup_steps=0 if start_from else 2000,
            decay="cosine",
            decay_steps=440_000,
            offset=400_000 if start_from else 0,
        ),
        optimizer=OptimizerPlan(kind="adamw", betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, clip=1.0),
        attention="auto",
        operators={
            "attention": ("portable", "flash-attn", "sdpa"),
            **dict.fromkeys(("rms_norm", "rope", "swiglu"), ("portable", "torch")),
            "cross_entropy": ("torch",),
        },
        layout=layout,
        placement=Placement(nodes=8, ranks_per_node=8, chunks=chunks_of(layout)),
        checkpoint=CheckpointPlan(every_steps=None, every_seconds=1800.0, keep=2),
        log_every=10,
    )


def memory(rank: int, activations: dict[str, int], logits: int) -> RankMemory:
    terms = {
        "parameters_bytes": 2 * GB,
        "gradients_bytes": 4 * GB,
        "optimizer_bytes": 3 * GB,
        "activations_bytes": sum(activations.values()),
        "logits_bytes": logits,
        "communication_bytes": 2 * GB,
        "temporaries_bytes": GB,
        "framework_bytes": 2 * GB,
    }
    return RankMemory(
        pipeline_rank=rank,
        activations=activations,
        total_bytes=sum(terms.values()),
        peak="start of the first backward pass",
        binds="activations" if sum(activations.values()) > 4 * GB else "gradients",
        **terms,
    )


def step(layout: Layout, layer_s: float, micro_batches: int) -> StepTime:
    """Times that are simple multiples; the head makes the last chunk dearer."""
    blocks = layout.pipeline * layout.virtual_pipeline
    layers = MODEL.layers // blocks
    chunks = []
    for rank in range(layout.pipeline):
        for chunk in range(layout.virtual_pipeline):
            last = chunk * layout.pipeline + rank == blocks - 1
            forward = layers * layer_s + (2 * layer_s if last else 0.0)
            chunks.append(ChunkTime(pipeline_rank=rank, chunk=chunk, forward_s=forward, backward_s=2 * forward,
                                    weight_s=forward))  # fmt: skip
    compute = 3 * MODEL.layers // layout.pipeline * layer_s * micro_batches
    parts = {"matrix products": 0.7 * compute, "attention": 0.2 * compute, "tensor exchange": 0.1 * compute}
    parts |= {"pipeline idle": 0.15 * compute, "gradient reduction": 0.05 * compute, "optimizer": 0.02 * compute}
    time = sum(parts.values())
    return StepTime(
        time_s=time,
        low_s=time * (1 - SPREAD),
        high_s=time * (1 + SPREAD),
        parts=parts,
        chunks=tuple(chunks),
        transfer_s=layer_s / 4,
        bubble=0.12,
    )


def estimate(stage: PhaseStage, ranks: tuple[RankMemory, ...], layer_s: float) -> Estimate:
    time = step(stage.layout, layer_s, stage.layout.micro_batches)
    duration = time.time_s * stage.steps * 1.05
    hours = duration * 64 / 3600
    return Estimate(
        stage=stage.name,
        model_flops_per_token=47.37e9,
        hardware_flops_per_token=47.37e9 * 1.02,
        memory=ranks,
        capacity_bytes=HARDWARE.memory_bytes,
        step=time,
        tokens_per_s=stage.tokens_per_step / time.time_s,
        mfu=0.47,
        goodput=Goodput(
            share=0.952, failures=12.5, between_failures_s=26 * 3600.0, save_s=21.0, checkpoint_bytes=108 * GB,
            checkpoint_interval_s=1800.0, best_interval_s=2400.0, best_share=0.961,
        ),
        duration_s=duration,
        duration_low_s=duration * (1 - SPREAD),
        duration_high_s=duration * (1 + SPREAD),
        gpu_hours=hours,
        energy_kwh=hours * 0.5,
        cost=hours * 1.8,
        cost_low=hours * 1.8 * (1 - SPREAD),
        cost_high=hours * 1.8 * (1 + SPREAD),
    )  # fmt: skip


def source(name: str) -> SourcePlan:
    return SourcePlan(
        name=name, path=f"s3://corpus/{name}/*.jsonl.zst", kind="text", language="en", license="various",
        format="jsonl", text_key="text", include=(), exclude=(), max_size_bytes=None, files=None, size_bytes=None,
        digest=None,
    )  # fmt: skip


def made_plan(**changes: object) -> Plan:
    """The plan; `changes` are fields of it that shall be others."""
    short = phase("4k", PIPELINED, 4096, 400_000, None)
    long = phase("32k", LONG, 32_768, 40_000, "4k")
    kinds = {"attention": 9 * GB, "mlp": 12 * GB, "norm": 5 * GB, "residual": 3 * GB}
    ranks = tuple(memory(rank, {k: v * (12 - rank) // 12 for k, v in kinds.items()}, (rank == 3) * 3 * GB)
                  for rank in range(4))  # fmt: skip
    stages: tuple[AnyStage, ...] = (
        IngestStage(name="ingest", needs=(), fingerprint="0" * 32, sources=(source("web"), source("code")),
                    held_out=0.01, seed=1024, workers=0),
        TokenizerStage(name="tokenizer", needs=("ingest",), fingerprint="1" * 32, path=None, digest=None,
                       algorithm="bpe", vocab_size=92_544, mixture={"web": 0.7, "code": 0.3}, byte_fallback=True,
                       split_digits=True, character_coverage=0.9995, spare_tokens=141, sample_bytes=10**9, seed=1024,
                       workers=0),
        TokenizeStage(name="tokenize", needs=("ingest", "tokenizer"), fingerprint="2" * 32, sources=("web", "code"),
                      vocab_size=92_544, workers=0),
        short,
        long,
        EvaluateStage(name="evaluate.32k", needs=("ingest", "tokenizer", "32k"), fingerprint="3" * 32, of="32k",
                      perplexity=PerplexityPlan(sources=("web", "code"), sequence_length=4096, batch=1), samples=None),
        ExportStage(name="export.32k", needs=("tokenizer", "32k"), fingerprint="4" * 32, of="32k",
                    formats=("huggingface",), precision="bf16", max_positions=32_768, rope_base=50_000.0),
    )  # fmt: skip
    fields: dict[str, object] = {
        "version": 1,
        "compiler": "trainwright 0",
        "name": "made-up",
        "root": ".",
        "flops_convention": "model FLOPs: causal attention counted once (half the square), recomputation not counted",
        "hardware": HARDWARE,
        "stages": stages,
        "estimates": (
            estimate(short, ranks, 0.006),
            estimate(long, (memory(0, {"residual": 3 * GB}, 2 * GB),), 0.02),
        ),
        "assumptions": (
            Assumption(key="model.head_size", value="128", origin="derived", why="`hidden_size` / `heads`"),
            Assumption(key="run.log_every", value="10", origin="default", why="ours"),
        ),
        "notices": (
            Notice(key="topology.context", message="context parallelism is not built yet", blocks=True),
            Notice(key="data.sources.web.path", message="`s3://web` is not looked at while planning", blocks=False),
            Notice(key="data.sources.code.path", message="`s3://code` is not looked at while planning", blocks=False),
        ),
    }
    return Plan(**(fields | changes))  # type: ignore[arg-type]


def made_verdicts(plan: Plan) -> list[Verdict]:
    """Data is there, the first phase stopped, the rest is to be made."""
    verdicts = []
    for stage in plan.stages:
        if isinstance(stage, (IngestStage, TokenizerStage, TokenizeStage)):
            verdicts.append(Verdict(stage.name, "reuse", "done at 2026-01-01T00:00:00Z"))
        elif stage.name == "4k":
            verdicts.append(Verdict("4k", "resume", "stopped, checkpoint at step 120 of 400,000", 120))
        else:
            verdicts.append(Verdict(stage.name, "run", "has no result yet"))
    return verdicts
