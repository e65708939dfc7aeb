"""The plan: what the compiler emits and the runtime executes, and the only bridge between the two.

A plan is complete: the runtime takes no default of its own. Two compilations of one input give the same bytes.
Paths are relative to `Plan.root`, which is itself relative to the folder the plan lies in, or URLs.
Published JSON schema: `schemas/plan.schema.json`.
"""

import hashlib
from typing import Literal

import msgspec
from msgspec import Struct

from trainwright.spec.device import HardwareFile

PLAN_VERSION = 1


class Part(Struct, frozen=True, forbid_unknown_fields=True):
    """A piece of a plan."""


# --- model and layout ------------------------------------------------------------------------------------------------


class ModelPlan(Part, kw_only=True, frozen=True):
    """A decoder of InternLM2's shape: RMSNorm in fp32, SwiGLU, grouped-query attention, RoPE."""

    layers: int
    hidden_size: int
    heads: int
    kv_heads: int
    head_size: int
    ffn_size: int
    vocab_size: int
    norm_eps: float
    init_std: float
    attention_bias: bool
    tie_embeddings: bool
    parameters: int


class Coordinates(Part, kw_only=True, frozen=True):
    """Where a rank stands on each axis of a layout."""

    tensor: int
    context: int
    data: int
    pipeline: int


class Layout(Part, kw_only=True, frozen=True):
    """The parallel layout of one training stage. Ranks are numbered tensor fastest, then context, data, pipeline."""

    tensor: int
    pipeline: int
    virtual_pipeline: int
    context: int
    data: int
    sequence_parallel: bool
    zero: int
    zero_group: int
    micro_batch: int  # sequences
    micro_batches: int  # per data-parallel rank and step
    recompute: Literal["none", "selective", "full"]
    schedule: Literal["1f1b", "interleaved"]
    recompute_modules: tuple[Literal["core_attention", "norm", "activation", "mlp"], ...] = ()  # of `selective`
    recompute_layers: int | None = None  # of `full`: of each chunk, the first so many; None: all
    offload: tuple[Literal["optimizer", "activations"], ...] = ()
    weight: int = 1  # ranks that cut each weight
    keep_gathered: bool = False  # sequence parallelism keeps gathered inputs, rather than gather them again
    context_exchange: Literal["gather", "ring", "all_to_all"] = "gather"  # how they attend to each other's tokens

    @property
    def world_size(self) -> int:
        return self.tensor * self.context * self.data * self.pipeline

    def coordinates(self, rank: int) -> Coordinates:
        rest, tensor = divmod(rank, self.tensor)
        rest, context = divmod(rest, self.context)
        pipeline, data = divmod(rest, self.data)
        return Coordinates(tensor=tensor, context=context, data=data, pipeline=pipeline)


class ModelChunk(Part, kw_only=True, frozen=True):
    """The consecutive layers [first_layer, last_layer) that one pipeline rank holds as one chunk."""

    pipeline_rank: int
    chunk: int
    first_layer: int
    last_layer: int
    embedding: bool
    head: bool


class Placement(Part, kw_only=True, frozen=True):
    """Ranks on devices: rank r runs on node r // ranks_per_node, device r % ranks_per_node."""

    nodes: int
    ranks_per_node: int
    chunks: tuple[ModelChunk, ...]


# --- stages ----------------------------------------------------------------------------------------------------------


class Stage(Part, kw_only=True, frozen=True, tag_field="kind"):
    """One node of the stage graph. `fingerprint` covers all that determines its result (not its layout)."""

    name: str
    needs: tuple[str, ...]
    fingerprint: str = ""


class SourcePlan(Part, kw_only=True, frozen=True):
    """One source of text, and the digest of its content as it was when the plan was made."""

    name: str
    path: str
    kind: str
    language: str
    license: str
    format: Literal["auto", "text", "jsonl", "files"]
    text_key: str
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    max_size_bytes: int | None
    files: int | None  # None: remote, not looked at
    size_bytes: int | None
    digest: str | None


class IngestStage(Stage, kw_only=True, frozen=True, tag="ingest"):
    """Raw files -> documents; exact de-duplication across sources; held-out split by document."""

    sources: tuple[SourcePlan, ...]
    held_out: float
    seed: int
    workers: int  # 0: one per core


class TokenizerStage(Stage, kw_only=True, frozen=True, tag="tokenizer"):
    """A SentencePiece model: trained on the mixture, or taken as it is from `path`."""

    path: str | None
    digest: str | None
    algorithm: Literal["bpe"]
    vocab_size: int
    mixture: dict[str, float]
    byte_fallback: bool
    split_digits: bool
    character_coverage: float
    spare_tokens: int
    sample_bytes: int
    seed: int
    workers: int


class TokenizeStage(Stage, kw_only=True, frozen=True, tag="tokenize"):
    """Documents -> Megatron-core's IndexedDataset, one `.bin/.idx` pair per source and split."""

    sources: tuple[str, ...]
    vocab_size: int
    workers: int


class LearningRatePlan(Part, kw_only=True, frozen=True):
    """The curve over steps `offset .. offset + steps` of a decay that ends at `decay_steps`."""

    peak: float
    final: float
    warmup_steps: int
    decay: Literal["cosine", "linear", "constant"]
    decay_steps: int  # of the whole curve, warm-up included; several phases may share one curve
    offset: int  # steps of the curve that earlier phases used


class OptimizerPlan(Part, kw_only=True, frozen=True):
    kind: Literal["adamw"]
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    clip: float


class CheckpointPlan(Part, kw_only=True, frozen=True):
    every_steps: int | None
    every_seconds: float | None
    keep: int


class PhaseStage(Stage, kw_only=True, frozen=True, tag="phase"):
    """A pre-training phase. It starts from the weights and optimizer state of `start_from`, or from the seed."""

    model: ModelPlan
    start_from: str | None
    index: int
    seed: int
    precision: Literal["bf16", "fp32"]
    tokens: int
    steps: int
    tokens_per_step: int
    sequence_length: int
    sequences_per_step: int
    mixture: dict[str, float]  # over sources, sums to 1
    rope_base: float
    learning_rate: LearningRatePlan
    optimizer: OptimizerPlan
    attention: Literal["auto", "reference", "sdpa", "portable", "flash-attn"]
    loss: Literal["logits", "fused"] = "logits"  # what the head does: `fused` never holds all logits of a micro-batch
    layout: Layout
    placement: Placement
    checkpoint: CheckpointPlan
    log_every: int


class PerplexityPlan(Part, kw_only=True, frozen=True):
    """Held-out loss per source: nats per token, bits per byte and perplexity."""

    sources: tuple[str, ...]
    sequence_length: int
    batch: int  # sequences


class SamplesPlan(Part, kw_only=True, frozen=True):
    prompts: tuple[str, ...]
    max_tokens: int
    temperature: float
    top_p: float
    seed: int


class EvaluateStage(Stage, kw_only=True, frozen=True, tag="evaluate"):
    """Looks at the last checkpoint of the phase `of`, on one process."""

    of: str
    perplexity: PerplexityPlan | None
    samples: SamplesPlan | None


class ExportStage(Stage, kw_only=True, frozen=True, tag="export"):
    """The last checkpoint of the phase `of` in formats that other programs load."""

    of: str
    formats: tuple[Literal["huggingface", "internlm2"], ...]
    precision: Literal["bf16", "fp32"]
    max_positions: int
    rope_base: float


AnyStage = IngestStage | TokenizerStage | TokenizeStage | PhaseStage | EvaluateStage | ExportStage


# --- estimates -------------------------------------------------------------------------------------------------------


class RankMemory(Part, kw_only=True, frozen=True):
    """Memory of a rank on one pipeline rank at the moment of its peak, in bytes."""

    pipeline_rank: int
    parameters_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    activations_bytes: int
    activations: dict[str, int]  # by kind; sums to `activations_bytes`
    logits_bytes: int
    communication_bytes: int  # gathered weights, buckets, buffers of exchanges
    temporaries_bytes: int
    framework_bytes: int  # device context, communicators: outside of the allocator
    total_bytes: int
    peak: str  # the moment, in a few words
    binds: str  # the largest term

    @property
    def allocated_bytes(self) -> int:
        """What torch's allocator hands out: to be compared with `torch.cuda.max_memory_allocated`."""
        return self.total_bytes - self.framework_bytes


class ChunkTime(Part, kw_only=True, frozen=True):
    """Seconds of one micro-batch in one model chunk, its tensor- and context-parallel exchanges included.

    `weight_s` is the part of `backward_s` that computes weight gradients, which zero-bubble schedules defer.
    """

    pipeline_rank: int
    chunk: int
    forward_s: float
    backward_s: float
    weight_s: float


class StepTime(Part, kw_only=True, frozen=True):
    """Seconds of one optimizer step on the slowest rank. `parts` add up to `time_s`; low and high hold 80 % of runs."""

    time_s: float
    low_s: float
    high_s: float
    parts: dict[str, float]  # kind of work on the critical path -> seconds
    chunks: tuple[ChunkTime, ...]
    transfer_s: float  # of one micro-batch's activations between two pipeline ranks
    bubble: float  # idle time of the pipeline as a share of its span


class Goodput(Part, kw_only=True, frozen=True):
    """What failures and checkpoints cost of a phase's time."""

    share: float  # of wall time that trains steps which are not lost
    failures: float  # expected in the phase
    between_failures_s: float  # on average, of all the phase's devices together
    save_s: float  # that training stands still for one checkpoint
    checkpoint_bytes: int
    checkpoint_interval_s: float  # of training, as the spec has it
    best_interval_s: float  # Daly 2006; about sqrt(2 * save * time between failures)
    best_share: float  # what `share` would be with it


class Estimate(Part, kw_only=True, frozen=True):
    """What a training stage is expected to take. None where nothing is known of the device's speed or its price."""

    stage: str
    model_flops_per_token: float
    hardware_flops_per_token: float  # with recomputation
    memory: tuple[RankMemory, ...]  # one for each pipeline rank
    capacity_bytes: int | None
    step: StepTime | None
    tokens_per_s: float | None
    mfu: float | None
    goodput: Goodput | None
    duration_s: float | None  # wall time, failures and checkpoints included
    duration_low_s: float | None
    duration_high_s: float | None
    gpu_hours: float | None
    energy_kwh: float | None
    cost: float | None
    cost_low: float | None
    cost_high: float | None

    @property
    def step_time_s(self) -> float | None:
        return self.step.time_s if self.step else None


class Assumption(Part, kw_only=True, frozen=True):
    """A value that nobody wrote, and where it comes from."""

    key: str
    value: str
    origin: str
    why: str


class Notice(Part, kw_only=True, frozen=True):
    """A part of the spec that this version checks but cannot execute yet; `run` refuses if `blocks`."""

    key: str
    message: str
    blocks: bool


class Hardware(Part, kw_only=True, frozen=True):
    name: str
    device: Literal["cpu", "cuda"]
    nodes: int
    gpus_per_node: int
    memory_bytes: int | None
    peak_flops: float | None  # of the run's precision, dense
    price_per_gpu_hour: float | None
    figures: HardwareFile = HardwareFile()  # all that prices the plan, the spec's network in its place


class Plan(Part, kw_only=True, frozen=True):
    """A whole plan; `stages` are in an order in which they can be executed."""

    version: int
    compiler: str
    name: str
    root: str
    flops_convention: str
    hardware: Hardware
    stages: tuple[AnyStage, ...]
    estimates: tuple[Estimate, ...]
    assumptions: tuple[Assumption, ...]
    notices: tuple[Notice, ...]
    spec_files: dict[str, str] = {}  # what it was compiled from, relative to `root` -> digest of the values there

    def stage(self, name: str) -> AnyStage:
        """The stage of that name; KeyError if there is none."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(name)


def encode(plan: Plan) -> bytes:
    """The plan's bytes: indented JSON in the order of the fields, mappings sorted, one newline at the end."""
    return msgspec.json.format(msgspec.json.encode(plan, order="deterministic"), indent=2) + b"\n"


class OtherVersionError(msgspec.ValidationError):
    """The plan is one of another version of this format."""


class _Versioned(Struct):
    version: int


def decode(data: bytes) -> Plan:
    """The plan in `data`. Raises msgspec.ValidationError, which names the path, if it is not one."""
    version = msgspec.json.decode(data, type=_Versioned).version
    if version != PLAN_VERSION:
        raise OtherVersionError(f"it has version {version}, this is trainwright for version {PLAN_VERSION}")
    return msgspec.json.decode(data, type=Plan)


# What a stage is executed with does not change its result: a phase may be resumed under another layout, and what the
# loss is made of follows from the layout.
_NOT_IDENTITY = frozenset({"fingerprint", "needs", "layout", "loss", "placement", "workers", "checkpoint", "log_every"})
# Raised by one when the code of a kind of stage changes what it computes, so that older results are not reused.
_REVISIONS = {"ingest": 1, "tokenizer": 1, "tokenize": 1, "phase": 1, "evaluate": 1, "export": 1}


def identity(stage: AnyStage) -> dict[str, object]:
    """All of the stage's own values that determine its result, as plain data."""
    plain = msgspec.to_builtins(stage, order="deterministic")
    kept = {key: value for key, value in plain.items() if key not in _NOT_IDENTITY}
    if isinstance(stage, IngestStage):
        kept["sources"] = [_by_content(source) for source in plain["sources"]]
    return _by_content(kept) | {"revision": _REVISIONS[plain["kind"]]}


def _by_content(plain: dict[str, object]) -> dict[str, object]:
    """Text that was looked at is known by its digest, wherever it lies; other text by its path."""
    return {key: value for key, value in plain.items() if key != "path" or plain.get("digest") is None}


def fingerprint(stage: AnyStage, needs: dict[str, str]) -> str:
    """Digest of the stage's identity and of the fingerprints of what it needs (name -> fingerprint)."""
    data = msgspec.json.encode({"stage": identity(stage), "needs": needs}, order="sorted")
    return hashlib.blake2b(data, digest_size=16).hexdigest()
