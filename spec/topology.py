"""`[topology]`, and what a training stage may change of it."""

from typing import Annotated, Literal

from msgspec import Meta

from trainwright.spec.quantity import Count, Table

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
    context_heads: Annotated[
        Count,
        Meta(
            description="With `gather` or `ring`: so many neighbours of the context ranks exchange heads for tokens, "
            "and that goes on between such groups (InternEvo's 2D sequence).",
        ),
    ] = 1
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
    context_heads: Count | None = None
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
