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
BytesPerSecond = Annotated[float, _quantity("bandwidth", 1.0, 'A bandwidth, such as "200Gb/s" or "300GB/s".')]
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
    precision: Annotated[
        Literal["bf16", "fp32"], Meta(description="Of weights and activations; the optimizer keeps fp32.")
    ] = "bf16"
    checkpoint: Checkpoint = Checkpoint()
    log_every: Annotated[int, Meta(ge=1, description="Steps between two lines of the log.")] = 10


# --- [model] ---------------------------------------------------------------------------------------------------------


class Model(Table, kw_only=True, frozen=True):
    preset: Annotated[
        str | None,
        Meta(description="Takes every dimension not given here from a named size.", examples=["internlm2-7b"]),
    ] = None
    layers: Annotated[Count, Meta(description="Decoder layers.", examples=[32])]
    hidden_size: Annotated[Count, Meta(description="Width of the residual stream.", examples=[4096])]
    heads: Annotated[Count, Meta(description="Query heads.", examples=[32])]
    kv_heads: Annotated[
        Count | None, Meta(description="Key and value heads (GQA); as many as `heads` if absent.", examples=[8])
    ] = None
    head_size: Annotated[Count | None, Meta(description="`hidden_size / heads` if absent.", examples=[128])] = None
    ffn_size: Annotated[Count, Meta(description="Inner width of the SwiGLU MLP.", examples=[14_336])]
    vocab_size: Annotated[Count, Meta(description="Rows of the embedding and of the head.", examples=[92_544])]
    norm_eps: Annotated[PositiveFloat, Meta(description="Of RMSNorm.")] = 1e-5
    init_std: Annotated[PositiveFloat, Meta(description="Standard deviation of the initial weights.")] = 0.02
    attention_bias: Annotated[bool, Meta(description="Biases on query, key, value and output (InternLM-7B).")] = False
    tie_embeddings: Annotated[bool, Meta(description="The head is the embedding.")] = False


# --- [tokenizer] -----------------------------------------------------------------------------------------------------


class TrainTokenizer(Table, kw_only=True, frozen=True):
    algorithm: Annotated[Literal["bpe"], Meta(description="Of SentencePiece.")] = "bpe"
    vocab_size: Annotated[Count | None, Meta(description="The model's `vocab_size` if absent.", examples=[92_544])] = (
        None
    )
    mixture: Annotated[
        str | None, Meta(description="What it is trained on; the first phase's mixture if absent.", examples=["base"])
    ] = None
    byte_fallback: Annotated[bool, Meta(description="Unknown characters become their bytes.")] = True
    split_digits: Annotated[bool, Meta(description="Every digit is a piece of its own.")] = True
    character_coverage: Annotated[float, Meta(ge=0.98, le=1.0, description="SentencePiece's own limits.")] = 0.9995
    spare_tokens: Annotated[
        int, Meta(ge=0, description="Unused pieces at the end, the six chat tokens not counted.")
    ] = 10
    sample: Annotated[Bytes, Meta(description="How much text is read, drawn by the mixture's weights.")] = 1 << 30


class Tokenizer(Table, kw_only=True, frozen=True):
    path: Annotated[Path | None, Meta(description="An existing SentencePiece model.", examples=["tokenizer.model"])] = (
        None
    )
    train: Annotated[TrainTokenizer | None, Meta(description="A new one, from the data.")] = None


# --- [data] ----------------------------------------------------------------------------------------------------------


class Source(Table, kw_only=True, frozen=True):
    path: Annotated[
        Path,
        Meta(
            description="A file, folder, glob, fsspec URL, or `python://stdlib` (the running Python's own sources).",
            examples=["data/more/*.jsonl.gz"],
        ),
    ]
    kind: Annotated[
        Literal["text", "code", "chat", "preference", "prompts"], Meta(description="What it is used for.")
    ] = "text"
    language: Annotated[str, Meta(description="BCP 47 tag (`en`, `zh`) or a programming language.")] = "und"
    license: Annotated[str, Meta(description="SPDX identifier or a phrase; shown in every report.")] = "unknown"
    format: Annotated[
        Literal["auto", "text", "jsonl", "files"],
        Meta(description="`text`: a document per file; `files`: the same for a folder of sources; `auto`: by suffix."),
    ] = "auto"
    text_key: Annotated[str, Meta(description="Where a JSON line holds its text.")] = "text"
    include: Annotated[tuple[str, ...], Meta(description="Globs relative to the folder; all files if empty.")] = ()
    exclude: Annotated[tuple[str, ...], Meta(description="Globs of files to leave out.")] = ()
    max_size: Annotated[Bytes | None, Meta(description="Stop after this much text.", examples=["10GiB"])] = None
    recipe: Annotated[
        str | None, Meta(description="Names a cleaning recipe of `[data.recipes]`.", examples=["clean"])
    ] = None


class Data(Table, kw_only=True, frozen=True):
    sources: dict[Name, Source] = {}
    mixtures: Annotated[
        dict[Name, dict[Name, NonNegativeFloat]],
        Meta(description="Weights over sources or other mixtures; normalised, so they need not sum to one."),
    ] = {}
    recipes: Annotated[dict[str, Any], Meta(description="Cleaning recipes by name; they are not carried out yet.")] = {}
    held_out: Annotated[float, Meta(ge=0.0, lt=1.0, description="Share of documents kept from training.")] = 0.01
    workers: Annotated[
        int | Literal["auto"], Meta(description="Processes of the data stages; one per core if auto.")
    ] = "auto"


# --- [cluster], [budget] ---------------------------------------------------------------------------------------------


class Network(Table, kw_only=True, frozen=True):
    per_gpu: Annotated[
        BytesPerSecond | None, Meta(description="As the gpu's file says, if absent.", examples=["200Gb/s"])
    ] = None
    kind: Annotated[Literal["infiniband", "roce", "ethernet", "loopback"], Meta(description="Between the nodes.")] = (
        "infiniband"
    )


class Failures(Table, kw_only=True, frozen=True):
    mean_time_between: Annotated[GpuHours, Meta(description="Of work between two failures.")] = "50000 gpu-hours"
    restart: Annotated[Seconds, Meta(description="From a failure to the next step: detection, start, loading.")] = 480.0


class Storage(Table, kw_only=True, frozen=True):
    per_node: Annotated[BytesPerSecond, Meta(description="What one node writes of a checkpoint.")] = 2e9
    total: Annotated[
        BytesPerSecond | None,
        Meta(description="What all nodes write together; as many as there are, if absent.", examples=["100GB/s"]),
    ] = None


class Cluster(Table, kw_only=True, frozen=True):
    nodes: Annotated[Count, Meta(description="Machines.")] = 1
    gpus_per_node: Annotated[Count, Meta(description="Worker processes per node; on a CPU machine, processes.")] = 1
    gpu: Annotated[str, Meta(description="A file of `hardware/`, shipped or beside the spec, or a path to one.")] = (
        "cpu"
    )
    network: Network = Network()
    price_per_gpu_hour: Annotated[
        NonNegativeFloat | None,
        Meta(description="Of whatever money; the plan then says what training costs.", examples=[1.8]),
    ] = None
    pue: Annotated[float, Meta(ge=1.0, description="The site's power over that of its devices.")] = 1.1
    failures: Failures = Failures()
    storage: Storage = Storage()


class Budget(Table, kw_only=True, frozen=True):
    max_cost: Annotated[
        NonNegativeFloat | None, Meta(description="A plan that costs more is refused.", examples=[2_500_000])
    ] = None
    deadline: Annotated[Seconds | None, Meta(description="A plan that takes longer is refused.", examples=["40d"])] = (
        None
    )


# --- [topology] ------------------------------------------------------------------------------------------------------


RecomputeModule = Literal["core_attention", "norm", "activation", "mlp"]
RecomputeModules = Annotated[tuple[RecomputeModule, ...], Meta(min_length=1)]


class Topology(Table, kw_only=True, frozen=True):
    """The parallel layout. `"auto"` leaves a value to the compiler, `topology = "auto"` all that it can choose."""

    tensor: Annotated[Count | Literal["auto"], Meta(description="Ranks that split each layer.")] = 1
    pipeline: Annotated[Count | Literal["auto"], Meta(description="Ranks in a row, each with some of the layers.")] = 1
    virtual_pipeline: Annotated[Count | Literal["auto"], Meta(description="Model chunks per pipeline rank.")] = 1
    context: Annotated[Count | Literal["auto"], Meta(description="Ranks that split each sequence.")] = 1
    context_exchange: Annotated[
        Literal["auto", "gather", "ring", "all_to_all"],
        Meta(
            description="How they attend to each other: all keys and values to all, block by block, or heads for "
            "tokens; `gather` if auto, `all_to_all` with `isp`."
        ),
    ] = "auto"
    data: Annotated[
        Count | Literal["auto"], Meta(description="Whatever of the world the other axes leave, if auto.")
    ] = "auto"
    sequence_parallel: Annotated[bool | Literal["auto"], Meta(description="On with tensor > 1, if auto.")] = "auto"
    zero: Annotated[
        Literal[0, 1, 2, 3, "auto"],
        Meta(description="Sharded over the data axis: 1 the optimizer, 2 gradients as well, 3 weights as well."),
    ] = 1
    zero_group: Annotated[
        Count | Literal["auto"] | None,
        Meta(description="Shard inside groups of this size; the whole axis if absent.", examples=[8]),
    ] = None
    micro_batch: Annotated[Count | Literal["auto"], Meta(description="Sequences per micro-batch.")] = "auto"
    recompute: Annotated[
        Literal["none", "selective", "full", "auto"],
        Meta(description="Activations that are made again in the backward pass instead of kept."),
    ] = "none"
    recompute_modules: Annotated[
        RecomputeModules | None,
        Meta(
            description="What `selective` makes again in the backward pass; the core attention if absent.",
            examples=[["core_attention"]],
        ),
    ] = None
    recompute_layers: Annotated[
        Count | None,
        Meta(description="With `full`: the first so many layers of each model chunk; all if absent.", examples=[4]),
    ] = None
    offload: Annotated[
        tuple[Literal["optimizer", "activations"], ...], Meta(description="What lies in the host's memory.")
    ] = ()
    tensor_mode: Annotated[
        Literal["mtp", "msp", "fsp", "isp"] | None,
        Meta(
            description="InternEvo's word for what the `tensor` ranks split; see docs/internevo.md.", examples=["isp"]
        ),
    ] = None
    weight: Annotated[Count, Meta(description="With `isp`: ranks that cut each weight and gather it to use it.")] = 1
    schedule: Annotated[
        Literal["auto", "1f1b", "interleaved"], Meta(description="Interleaved with virtual_pipeline > 1, if auto.")
    ] = "auto"


class TopologyOverride(Table, kw_only=True, frozen=True):
    """What a phase changes of `[topology]`; `None` keeps the spec's own value."""

    tensor: Count | Literal["auto"] | None = None
    pipeline: Count | Literal["auto"] | None = None
    virtual_pipeline: Count | Literal["auto"] | None = None
    context: Count | Literal["auto"] | None = None
    context_exchange: Literal["auto", "gather", "ring", "all_to_all"] | None = None
    data: Count | Literal["auto"] | None = None
    sequence_parallel: bool | Literal["auto"] | None = None
    zero: Literal[0, 1, 2, 3, "auto"] | None = None
    zero_group: Count | Literal["auto"] | None = None
    micro_batch: Count | Literal["auto"] | None = None
    recompute: Literal["none", "selective", "full", "auto"] | None = None
    recompute_modules: RecomputeModules | None = None
    recompute_layers: Count | None = None
    offload: tuple[Literal["optimizer", "activations"], ...] | None = None
    tensor_mode: Literal["mtp", "msp", "fsp", "isp"] | None = None
    weight: Count | None = None
    schedule: Literal["auto", "1f1b", "interleaved"] | None = None


# --- [optimizer], [kernels] ------------------------------------------------------------------------------------------


class Optimizer(Table, kw_only=True, frozen=True):
    kind: Annotated[Literal["adamw"], Meta(description="Adam with decoupled weight decay.")] = "adamw"
    betas: Annotated[tuple[Fraction, Fraction], Meta(description="Decay of the first and the second moment.")] = (
        0.9,
        0.95,
    )
    eps: Annotated[PositiveFloat, Meta(description="Added to the root of the second moment.")] = 1e-8
    weight_decay: Annotated[NonNegativeFloat, Meta(description="Of matrices; norms and biases are not decayed.")] = 0.1
    clip: Annotated[NonNegativeFloat, Meta(description="Global gradient norm; 0 turns clipping off.")] = 1.0


class Kernels(Table, kw_only=True, frozen=True):
    attention: Annotated[
        Literal["auto", "reference", "sdpa", "portable", "flash-attn"],
        Meta(
            description="`reference` is slow and plain, `sdpa` torch's own, `portable` ours in Triton (on a CPU "
            "interpreted: for checking), `flash-attn` that package."
        ),
    ] = "auto"
    loss: Annotated[
        Literal["auto", "logits", "fused"],
        Meta(
            description="`fused` never holds the logits of a whole micro-batch, for a third more of the head's time; "
            "`auto` where they were more than 4 GiB in fp32."
        ),
    ] = "auto"


# --- [[phases]] ------------------------------------------------------------------------------------------------------


class LearningRate(Table, kw_only=True, frozen=True):
    peak: Annotated[PositiveFloat, Meta(description="Reached at the end of the warm-up.", examples=[3e-4])]
    final: Annotated[NonNegativeFloat | None, Meta(description="A tenth of the peak if absent.", examples=[3e-5])] = (
        None
    )
    warmup: Annotated[Interval, Meta(description="Steps of linear warm-up.")] = "0 steps"
    decay: Annotated[Literal["cosine", "linear", "constant"], Meta(description="From the peak to the final rate.")] = (
        "cosine"
    )


class Phase(Table, kw_only=True, frozen=True, rename={"from_": "from"}):
    name: Annotated[Name, Meta(description="Names the stage.", examples=["4k"])]
    tokens: Annotated[Tokens, Meta(description="To train on.", examples=["2.34T"])]
    sequence_length: Annotated[
        Count, Meta(description="Tokens of one sequence; documents are packed into it.", examples=[4096])
    ]
    tokens_per_step: Annotated[
        Tokens | None, Meta(description="That of the previous phase if absent.", examples=["4Mi"])
    ] = None
    mixture: Annotated[str, Meta(description="A source or mixture of `[data]`.", examples=["base"])]
    rope_base: Annotated[
        PositiveFloat | None, Meta(description="That of the previous phase, else 10,000.", examples=[50_000])
    ] = None
    learning_rate: Annotated[
        LearningRate | None,
        Meta(
            description="If absent, the previous phase's curve goes on and spans this one too.",
            examples=[{"peak": 3e-4, "final": 3e-5, "warmup": "2000 steps", "decay": "cosine"}],
        ),
    ] = None
    topology: Annotated[
        TopologyOverride,
        Meta(description="Any key of `[topology]`, for this phase alone.", examples=[{"recompute": "full"}]),
    ] = TopologyOverride()
    from_: Annotated[
        str | None, Meta(description="The phase it starts from: the previous one if absent.", examples=["4k"])
    ] = None


# --- [alignment.*]: parsed and checked; the stages are not yet executable --------------------------------------------


class LongData(Table, kw_only=True, frozen=True):
    mixture: Annotated[str, Meta(description="Long documents.", examples=["long"])]
    share: Annotated[Fraction, Meta(description="Of the tokens.", examples=[0.1])]


class Sft(Table, kw_only=True, frozen=True, rename={"from_": "from"}):
    data: Annotated[tuple[str, ...], Meta(description="Sources of kind `chat`.", examples=[["dialogues"]])]
    from_: Annotated[str | None, Meta(description="A phase; the last one if absent.", examples=["pretrain"])] = None
    long_data: Annotated[
        LongData | None,
        Meta(description="Long documents mixed in.", examples=[{"mixture": "base", "share": 0.1}]),
    ] = None
    learning_rate: LearningRate = LearningRate(peak=4e-5)
    epochs: Annotated[Count, Meta(description="Passes over the data.")] = 1
    sequence_length: Annotated[
        Count | None, Meta(description="That of the phase it starts from, if absent.", examples=[32_768])
    ] = None


class Barrier(Table, kw_only=True, frozen=True):
    bound: Annotated[PositiveFloat, Meta(description="Rewards beyond plus or minus this are held back.")] = 5.0
    weight: Annotated[NonNegativeFloat, Meta(description="Of that term in the loss.")] = 0.02


class Gate(Table, kw_only=True, frozen=True):
    min_accuracy: Annotated[Fraction, Meta(description="On held-out pairs; the run ends below it.", examples=[0.7])]


class Reward(Table, kw_only=True, frozen=True, rename={"from_": "from"}):
    data: Annotated[tuple[str, ...], Meta(description="Sources of kind `preference`.", examples=[["pairs"]])]
    from_: Annotated[
        str | None, Meta(description="A phase or `sft`; the stage before it if absent.", examples=["sft"])
    ] = None
    focal_gamma: Annotated[
        NonNegativeFloat, Meta(description="Of the focal ranking loss: weighs down pairs that are easy.")
    ] = 2.0
    barrier: Barrier = Barrier()
    tokens_per_batch: Annotated[Tokens, Meta(description="Pairs are packed up to it.")] = 16_384
    conditions: Annotated[
        dict[str, Path], Meta(description="Files of system prompts by kind of data: one reward model, several tastes.")
    ] = {}
    gate: Annotated[Gate | None, Meta(description="What the model must reach.", examples=[{"min_accuracy": 0.7}])] = (
        None
    )
    learning_rate: LearningRate = LearningRate(peak=1e-5, final=5e-6)


class Pretrain(Table, kw_only=True, frozen=True):
    mixture: Annotated[str, Meta(description="Pre-training text that is mixed in.", examples=["base"])]
    weight: Annotated[NonNegativeFloat, Meta(description="Of its loss.")] = 0.5
    share: Annotated[Fraction, Meta(description="Of the batch.")] = 0.5


class Ppo(Table, kw_only=True, frozen=True, rename={"from_": "from"}):
    queries: Annotated[str, Meta(description="A source of kind `prompts`.", examples=["questions"])]
    from_: Annotated[
        str | None, Meta(description="A phase or `sft`; the stage before it if absent.", examples=["sft"])
    ] = None
    rounds: Annotated[Count, Meta(description="Of online RLHF.")] = 3
    iterations: Annotated[Count, Meta(description="Of one round.")] = 400
    kl: Annotated[NonNegativeFloat, Meta(description="Weight of the divergence from the start.")] = 0.01
    gae_lambda: Annotated[Fraction, Meta(description="Of the advantage estimate.")] = 0.99
    top_p: Annotated[Fraction, Meta(description="Of the answers that are sampled.")] = 0.9
    actor_learning_rate: Annotated[PositiveFloat, Meta(description="Constant.")] = 1e-6
    critic_learning_rate: Annotated[PositiveFloat, Meta(description="Constant.")] = 5e-6
    pretrain: Annotated[
        Pretrain | None,
        Meta(description="Against forgetting.", examples=[{"mixture": "base", "weight": 0.5, "share": 0.5}]),
    ] = None
    critic_warmup: Annotated[int, Meta(ge=0, description="Iterations in which only the critic learns.")] = 50
    placement: Annotated[
        Literal["auto", "colocated", "split"], Meta(description="Whether actor and critic share their GPUs.")
    ] = "auto"


class Alignment(Table, kw_only=True, frozen=True):
    sft: Sft | None = None
    reward: Reward | None = None
    ppo: Ppo | None = None


# --- [[evaluation]], [export] ----------------------------------------------------------------------------------------


class Evaluation(Table, kw_only=True, frozen=True):
    kind: Annotated[
        Literal["perplexity", "samples", "needle"],
        Meta(
            description="`perplexity`: held-out loss and bits per byte; `samples`: continuations of prompts.",
            examples=["samples"],
        ),
    ]
    of: Annotated[
        tuple[str, ...], Meta(min_length=1, description="Names of phases or alignment stages.", examples=[["pretrain"]])
    ]
    every: Annotated[
        Interval | None, Meta(description="Also during training; only at the end if absent.", examples=["1000 steps"])
    ] = None
    sources: Annotated[
        tuple[str, ...], Meta(description="perplexity: all sources if empty.", examples=[["stdlib"]])
    ] = ()
    prompts: Annotated[
        tuple[str, ...], Meta(description="samples: what to continue.", examples=[["Once upon a time"]])
    ] = ()
    max_tokens: Annotated[
        Count | None, Meta(description="samples: length of a continuation; 64 if absent.", examples=[64])
    ] = None
    temperature: Annotated[
        NonNegativeFloat | None, Meta(description="samples: 0 is greedy; 0.8 if absent.", examples=[0.8])
    ] = None
    top_p: Annotated[Fraction | None, Meta(description="samples: nucleus; 0.9 if absent.", examples=[0.9])] = None
    lengths: Annotated[
        tuple[Tokens, ...], Meta(description="needle: context lengths.", examples=[["4Ki", "32Ki"]])
    ] = ()


class Export(Table, kw_only=True, frozen=True):
    of: Annotated[tuple[str, ...], Meta(min_length=1, description="Names of phases.", examples=[["pretrain"]])]
    formats: Annotated[
        tuple[Literal["huggingface", "internlm2"], ...], Meta(min_length=1, description="What other programs load.")
    ] = ("huggingface",)


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
