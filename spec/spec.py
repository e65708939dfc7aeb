"""The resolved spec: every value a user may write, after presets, defaults and overrides were merged.

One struct per TOML table. A field's default is Trainwright's own unless its `why` says otherwise; `None` means
"not given" and is only used where absence itself has a meaning. Published JSON schema: `schemas/spec.schema.json`.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct


def _quantity(unit: str, ge: int | float, description: str, why: str | None = None) -> Meta:
    """A number that people write with a unit; `spec/units.py` knows the suffixes of each `unit`."""
    extra: dict[str, Any] = {"unit": unit}
    if why:
        extra["why"] = why
    return Meta(ge=ge, description=description, extra=extra, extra_json_schema={"x-unit": unit})


Count = Annotated[int, _quantity("count", 1, 'A positive count, such as 4096 or "4Ki".')]
Tokens = Annotated[int, _quantity("tokens", 1, 'A number of tokens, such as "2.34T" or "4Mi" (= 2^22).')]
Bytes = Annotated[int, _quantity("bytes", 0, 'A size, such as "80GiB".')]
Seconds = Annotated[float, _quantity("seconds", 0.0, 'A duration, such as "30min" or "40d".')]
BytesPerSecond = Annotated[float, _quantity("bandwidth", 0.0, 'A bandwidth, such as "200Gb/s" or "300GB/s".')]
Interval = Annotated[
    str,
    Meta(
        description='A number of steps or a duration, such as "500 steps" or "30min".',
        extra={"unit": "interval"},
        extra_json_schema={"x-unit": "interval"},
    ),
]
GpuHours = Annotated[
    str,
    Meta(description='Work between two failures, such as "50000 gpu-hours".', extra={"unit": "gpu-hours"}),
]
Fraction = Annotated[float, Meta(ge=0.0, le=1.0)]
PositiveFloat = Annotated[float, Meta(gt=0.0)]
NonNegativeFloat = Annotated[float, Meta(ge=0.0)]
Name = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="Letters, digits, `.`, `-` and `_`.",
        extra={"alphabet": "a name begins with a letter or digit and goes on with letters, digits, `.`, `-` and `_`"},
    ),
]
Path = Annotated[str, Meta(min_length=1, extra={"path": True})]


class Table(Struct, frozen=True, forbid_unknown_fields=True):
    """A TOML table."""


# --- [run] -----------------------------------------------------------------------------------------------------------


class Checkpoint(Table, kw_only=True, frozen=True):
    every: Annotated[Interval, Meta(description="How often a training stage saves.")] = "1000 steps"
    keep: Annotated[int, Meta(ge=1, description="How many of the newest checkpoints of a stage stay on disk.")] = 2


class Run(Table, kw_only=True, frozen=True):
    name: Annotated[Name, Meta(description="Names the folder `runs/<name>/`.")]
    seed: Annotated[int, Meta(ge=0, description="Every random choice is a function of this number.")] = 1024
    precision: Literal["bf16", "fp32"] = "bf16"
    checkpoint: Checkpoint = Checkpoint()
    log_every: Annotated[int, Meta(ge=1, description="Steps between two lines of the log.")] = 10


# --- [model] ---------------------------------------------------------------------------------------------------------


class Model(Table, kw_only=True, frozen=True):
    preset: Annotated[str | None, Meta(description="Takes every dimension not given here from a named size.")] = None
    layers: Count
    hidden_size: Count
    heads: Annotated[Count, Meta(description="Query heads.")]
    kv_heads: Annotated[Count | None, Meta(description="Key and value heads (GQA); as many as `heads` if absent.")] = (
        None
    )
    head_size: Annotated[Count | None, Meta(description="`hidden_size / heads` if absent.")] = None
    ffn_size: Annotated[Count, Meta(description="Inner width of the SwiGLU MLP.")]
    vocab_size: Count
    norm_eps: PositiveFloat = 1e-5
    init_std: Annotated[PositiveFloat, Meta(description="Standard deviation of the initial weights.")] = 0.02
    attention_bias: Annotated[bool, Meta(description="Biases on query, key, value and output (InternLM-7B).")] = False
    tie_embeddings: bool = False


# --- [tokenizer] -----------------------------------------------------------------------------------------------------


class TrainTokenizer(Table, kw_only=True, frozen=True):
    algorithm: Literal["bpe"] = "bpe"
    vocab_size: Annotated[Count | None, Meta(description="The model's `vocab_size` if absent.")] = None
    mixture: Annotated[str | None, Meta(description="What it is trained on; the first phase's mixture if absent.")] = (
        None
    )
    byte_fallback: bool = True
    split_digits: bool = True
    character_coverage: Annotated[float, Meta(ge=0.98, le=1.0, description="SentencePiece's own limits.")] = 0.9995
    spare_tokens: Annotated[
        int, Meta(ge=0, description="Unused pieces at the end, the six chat tokens not counted.")
    ] = 10
    sample: Annotated[Bytes, Meta(description="How much text is read, drawn by the mixture's weights.")] = 1 << 30


class Tokenizer(Table, kw_only=True, frozen=True):
    path: Annotated[Path | None, Meta(description="An existing SentencePiece model.")] = None
    train: TrainTokenizer | None = None


# --- [data] ----------------------------------------------------------------------------------------------------------


class Source(Table, kw_only=True, frozen=True):
    path: Annotated[
        Path,
        Meta(description="A file, folder, glob, fsspec URL, or `python://stdlib` (the running Python's own sources)."),
    ]
    kind: Literal["text", "code", "chat", "preference", "prompts"] = "text"
    language: Annotated[str, Meta(description="BCP 47 tag (`en`, `zh`) or a programming language.")] = "und"
    license: Annotated[str, Meta(description="SPDX identifier or a phrase; shown in every report.")] = "unknown"
    format: Annotated[
        Literal["auto", "text", "jsonl", "files"],
        Meta(description="`text`: a document per file; `files`: the same for a folder of sources; `auto`: by suffix."),
    ] = "auto"
    text_key: Annotated[str, Meta(description="Where a JSON line holds its text.")] = "text"
    include: Annotated[tuple[str, ...], Meta(description="Globs relative to the folder; all files if empty.")] = ()
    exclude: tuple[str, ...] = ()
    max_size: Annotated[Bytes | None, Meta(description="Stop after this much text.")] = None
    recipe: Annotated[str | None, Meta(description="Names a cleaning recipe of `[data.recipes]`.")] = None


class Data(Table, kw_only=True, frozen=True):
    sources: dict[Name, Source] = {}
    mixtures: Annotated[
        dict[Name, dict[Name, NonNegativeFloat]],
        Meta(description="Weights over sources or other mixtures; normalised, so they need not sum to one."),
    ] = {}
    recipes: dict[str, Any] = {}
    held_out: Annotated[float, Meta(ge=0.0, lt=1.0, description="Share of documents kept from training.")] = 0.01
    workers: Annotated[
        int | Literal["auto"], Meta(description="Processes of the data stages; one per core if auto.")
    ] = "auto"


# --- [cluster], [budget] ---------------------------------------------------------------------------------------------


class Network(Table, kw_only=True, frozen=True):
    per_gpu: Annotated[BytesPerSecond | None, Meta(description="As the gpu's file says, if absent.")] = None
    kind: Literal["infiniband", "roce", "ethernet", "loopback"] = "infiniband"


class Failures(Table, kw_only=True, frozen=True):
    mean_time_between: GpuHours = "50000 gpu-hours"
    restart: Seconds = 480.0


class Cluster(Table, kw_only=True, frozen=True):
    nodes: Count = 1
    gpus_per_node: Annotated[Count, Meta(description="Worker processes per node; on a CPU machine, processes.")] = 1
    gpu: Annotated[str, Meta(description="A file of `hardware/`, shipped or beside the spec, or a path to one.")] = "cpu"
    network: Network = Network()
    price_per_gpu_hour: NonNegativeFloat | None = None
    failures: Failures = Failures()


class Budget(Table, kw_only=True, frozen=True):
    max_cost: NonNegativeFloat | None = None
    deadline: Seconds | None = None


# --- [topology] ------------------------------------------------------------------------------------------------------


class Topology(Table, kw_only=True, frozen=True):
    tensor: Count | Literal["auto"] = 1
    pipeline: Count | Literal["auto"] = 1
    virtual_pipeline: Annotated[Count | Literal["auto"], Meta(description="Model chunks per pipeline rank.")] = 1
    context: Count | Literal["auto"] = 1
    data: Annotated[
        Count | Literal["auto"], Meta(description="Whatever of the world the other axes leave, if auto.")
    ] = "auto"
    sequence_parallel: Annotated[bool | Literal["auto"], Meta(description="On with tensor > 1, if auto.")] = "auto"
    zero: Annotated[Literal[0, 1, "auto"], Meta(description="1 shards the optimizer over the data axis.")] = 1
    zero_group: Annotated[
        Count | Literal["auto"] | None,
        Meta(description="Shard inside groups of this size; the whole axis if absent."),
    ] = None
    micro_batch: Annotated[Count | Literal["auto"], Meta(description="Sequences per micro-batch.")] = "auto"
    recompute: Literal["none", "selective", "full", "auto"] = "none"
    schedule: Annotated[
        Literal["auto", "1f1b", "interleaved"], Meta(description="Interleaved with virtual_pipeline > 1, if auto.")
    ] = "auto"


class TopologyOverride(Table, kw_only=True, frozen=True):
    """What a phase changes of `[topology]`; `None` keeps the spec's own value."""

    tensor: Count | Literal["auto"] | None = None
    pipeline: Count | Literal["auto"] | None = None
    virtual_pipeline: Count | Literal["auto"] | None = None
    context: Count | Literal["auto"] | None = None
    data: Count | Literal["auto"] | None = None
    sequence_parallel: bool | Literal["auto"] | None = None
    zero: Literal[0, 1, "auto"] | None = None
    zero_group: Count | Literal["auto"] | None = None
    micro_batch: Count | Literal["auto"] | None = None
    recompute: Literal["none", "selective", "full", "auto"] | None = None
    schedule: Literal["auto", "1f1b", "interleaved"] | None = None


# --- [optimizer], [kernels] ------------------------------------------------------------------------------------------


class Optimizer(Table, kw_only=True, frozen=True):
    kind: Literal["adamw"] = "adamw"
    betas: tuple[Fraction, Fraction] = (0.9, 0.95)
    eps: PositiveFloat = 1e-8
    weight_decay: NonNegativeFloat = 0.1
    clip: Annotated[NonNegativeFloat, Meta(description="Global gradient norm; 0 turns clipping off.")] = 1.0


class Kernels(Table, kw_only=True, frozen=True):
    attention: Literal["auto", "reference", "sdpa"] = "auto"


# --- [[phases]] ------------------------------------------------------------------------------------------------------


class LearningRate(Table, kw_only=True, frozen=True):
    peak: PositiveFloat
    final: Annotated[NonNegativeFloat | None, Meta(description="A tenth of the peak if absent.")] = None
    warmup: Annotated[Interval, Meta(description="Steps of linear warm-up.")] = "0 steps"
    decay: Literal["cosine", "linear", "constant"] = "cosine"


class Phase(Table, kw_only=True, frozen=True, rename={"from_": "from"}):
    name: Name
    tokens: Tokens
    sequence_length: Count
    tokens_per_step: Annotated[Tokens | None, Meta(description="That of the previous phase if absent.")] = None
    mixture: str
    rope_base: Annotated[PositiveFloat | None, Meta(description="That of the previous phase, else 10,000.")] = None
    learning_rate: Annotated[
        LearningRate | None, Meta(description="If absent, the previous phase's curve goes on and spans this one too.")
    ] = None
    topology: TopologyOverride = TopologyOverride()
    from_: Annotated[str | None, Meta(description="The phase it starts from: the previous one if absent.")] = None


# --- [alignment.*]: parsed and checked; the stages are not yet executable --------------------------------------------


class LongData(Table, kw_only=True, frozen=True):
    mixture: str
    share: Fraction


class Sft(Table, kw_only=True, frozen=True, rename={"from_": "from"}):
    data: tuple[str, ...]
    from_: str | None = None
    long_data: LongData | None = None
    learning_rate: LearningRate = LearningRate(peak=4e-5)
    epochs: Count = 1
    sequence_length: Count | None = None


class Barrier(Table, kw_only=True, frozen=True):
    bound: PositiveFloat = 5.0
    weight: NonNegativeFloat = 0.02


class Gate(Table, kw_only=True, frozen=True):
    min_accuracy: Fraction


class Reward(Table, kw_only=True, frozen=True, rename={"from_": "from"}):
    data: tuple[str, ...]
    from_: str | None = None
    focal_gamma: NonNegativeFloat = 2.0
    barrier: Barrier = Barrier()
    tokens_per_batch: Tokens = 16_384
    conditions: dict[str, Path] = {}
    gate: Gate | None = None
    learning_rate: LearningRate = LearningRate(peak=1e-5, final=5e-6)


class Pretrain(Table, kw_only=True, frozen=True):
    mixture: str
    weight: NonNegativeFloat = 0.5
    share: Fraction = 0.5


class Ppo(Table, kw_only=True, frozen=True, rename={"from_": "from"}):
    queries: str
    from_: str | None = None
    rounds: Count = 3
    iterations: Count = 400
    kl: NonNegativeFloat = 0.01
    gae_lambda: Fraction = 0.99
    top_p: Fraction = 0.9
    actor_learning_rate: PositiveFloat = 1e-6
    critic_learning_rate: PositiveFloat = 5e-6
    pretrain: Pretrain | None = None
    critic_warmup: Annotated[int, Meta(ge=0)] = 50
    placement: Literal["auto", "colocated", "split"] = "auto"


class Alignment(Table, kw_only=True, frozen=True):
    sft: Sft | None = None
    reward: Reward | None = None
    ppo: Ppo | None = None


# --- [[evaluation]], [export] ----------------------------------------------------------------------------------------


class Evaluation(Table, kw_only=True, frozen=True):
    kind: Annotated[
        Literal["perplexity", "samples", "needle"],
        Meta(description="`perplexity`: held-out loss and bits per byte; `samples`: continuations of prompts."),
    ]
    of: Annotated[tuple[str, ...], Meta(min_length=1, description="Names of phases or alignment stages.")]
    every: Annotated[Interval | None, Meta(description="Also during training; only at the end if absent.")] = None
    sources: Annotated[tuple[str, ...], Meta(description="perplexity: all sources if empty.")] = ()
    prompts: Annotated[tuple[str, ...], Meta(description="samples: what to continue.")] = ()
    max_tokens: Annotated[Count | None, Meta(description="samples: length of a continuation; 64 if absent.")] = None
    temperature: Annotated[NonNegativeFloat | None, Meta(description="samples: 0 is greedy; 0.8 if absent.")] = None
    top_p: Annotated[Fraction | None, Meta(description="samples: nucleus; 0.9 if absent.")] = None
    lengths: Annotated[tuple[Tokens, ...], Meta(description="needle: context lengths.")] = ()


class Export(Table, kw_only=True, frozen=True):
    of: Annotated[tuple[str, ...], Meta(min_length=1)]
    formats: Annotated[tuple[Literal["huggingface", "internlm2"], ...], Meta(min_length=1)] = ("huggingface",)


class Spec(Table, kw_only=True, frozen=True):
    """A whole spec, resolved."""

    run: Run
    model: Model
    tokenizer: Tokenizer
    data: Data = Data()
    cluster: Cluster = Cluster()
    budget: Budget = Budget()
    topology: Topology = Topology()
    optimizer: Optimizer = Optimizer()
    kernels: Kernels = Kernels()
    phases: tuple[Phase, ...] = ()
    alignment: Alignment = Alignment()
    evaluation: tuple[Evaluation, ...] = ()
    export: Export | None = None
