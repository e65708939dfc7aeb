"""The model of a plan, and how a training stage spreads it over ranks and devices."""

from typing import Literal

from msgspec import Struct


class Part(Struct, frozen=True, forbid_unknown_fields=True):
    """A piece of a plan."""


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
    context_heads: int = 1  # with `gather` or `ring`: neighbours that exchange heads for tokens, and those go between

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
