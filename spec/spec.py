"""The resolved spec: every value a user may write, after presets, defaults and overrides were merged.

One struct per TOML table. A field's default is Trainwright's own unless its `why` says otherwise; `None` means
"not given" and is only used where absence itself has a meaning. Published JSON schema: `schemas/spec.schema.json`.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta

from trainwright.spec.alignment import Alignment, Chat
from trainwright.spec.learning_rate import LearningRate
from trainwright.spec.quantity import (
    Bytes,
    BytesPerSecond,
    Count,
    Fraction,
    GpuHours,
    Interval,
    Name,
    NonNegativeFloat,
    Path,
    PositiveFloat,
    Seconds,
    Table,
    Tokens,
)
from trainwright.spec.topology import Topology, TopologyOverride

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
    join: Annotated[
        Literal["none", "repository"],
        Meta(
            description="`repository`: the files of a repository (a first folder, an archive, or a JSON line's `repo`) "
            "become long documents, each file after those it imports. Of kind `code`."
        ),
    ] = "none"
    join_size: Annotated[
        Bytes, Meta(description="Of a joined document: the file that would go beyond it is left out; ours.")
    ] = 128 << 10
    tokens: Annotated[
        Tokens | None,
        Meta(
            description="About how many it holds: by it the plan tells how often phases read it and how long alignment "
            "takes; of local files their size tells, if they are not compressed.",
            examples=["2B"],
        ),
    ] = None
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
        Literal["auto", "reference", "sdpa", "portable", "hopper", "flash-attn"],
        Meta(
            description="`reference` is slow and plain, `sdpa` torch's own, `portable` ours in Triton (on a CPU "
            "interpreted: for checking), `hopper` ours for the H100 and H200 alone, `flash-attn` that package."
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
    chat: Chat = Chat()
    alignment: Alignment = Alignment()
    evaluation: tuple[Evaluation, ...] = ()
    export: Export | None = None
