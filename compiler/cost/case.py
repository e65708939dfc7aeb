"""What the cost model prices: one training step of a model under a layout, on a kind of device, by a framework.

A Case is wider than what our own runtime executes, so that published runs of other systems can be predicted by the
same formulas. The sizes of a layout may be numpy arrays of one shape (see `numeric`): all figures are then arrays.
Letters as in the field: t tensor, p pipeline, v chunks a rank, c context, D data, z the ranks that share a state.
"""

from dataclasses import dataclass
from typing import Literal

from trainwright.compiler.cost.numeric import Number, where
from trainwright.spec.plan import ModelPlan, RewardStage, TrainingStage

Precision = Literal["fp32", "bf16", "fp16", "fp8"]
RecomputeModule = Literal["core_attention", "norm", "activation", "mlp"]

# The second chunks go back through the pipeline, so that the first rank holds the head as well as the embedding.
V_SCHEDULES = frozenset({"zb-v", "v-half", "v-min"})


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The dimensions of a decoder that its cost depends on."""

    layers: int
    hidden_size: int
    heads: int
    kv_heads: int
    head_size: int
    ffn_size: int
    vocab_size: int
    gated: bool = True  # three MLP matrices (SwiGLU), else two
    tied: bool = False
    bias: bool = False  # on queries, keys, values and output; with a plain MLP, as in GPT, on everything
    dropout: bool = False  # keeps masks for the backward pass
    stored_scores: bool = False  # attention that keeps its s x s scores: before FlashAttention
    learned_positions: int = 0  # rows of a table of positions, which tensor ranks do not split

    @classmethod
    def of(cls, model: ModelPlan) -> "ModelShape":
        return cls(
            layers=model.layers,
            hidden_size=model.hidden_size,
            heads=model.heads,
            kv_heads=model.kv_heads,
            head_size=model.head_size,
            ffn_size=model.ffn_size,
            vocab_size=model.vocab_size,
            tied=model.tie_embeddings,
            bias=model.attention_bias,
        )


@dataclass(frozen=True, slots=True)
class Case:
    """One training step. Words mean what they mean in the spec's `[topology]`."""

    model: ModelShape
    sequence_length: Number
    precision: Precision = "bf16"
    tensor: Number = 1
    pipeline: Number = 1
    virtual_pipeline: Number = 1
    context: Number = 1
    data: Number = 1
    sequence_parallel: Number = False
    zero: Number = 0  # 0 to 3; 3 is FSDP
    zero_group: Number = 1  # data ranks that share one copy of what ZeRO shards
    micro_batch: Number = 1  # sequences
    micro_batches: Number = 1  # per data-parallel rank and step
    schedule: str = "1f1b"
    recompute: Literal["none", "selective", "full"] = "none"
    recompute_modules: tuple[RecomputeModule, ...] = ("core_attention",)  # what `selective` drops
    recompute_layers: int | None = None  # with `full`: of each chunk, the first so many layers; None: all
    keep_gathered: Number = False  # sequence parallelism keeps gathered inputs for the backward pass
    context_exchange: Literal["gather", "ring", "all_to_all"] = "gather"  # of context ranks
    context_heads: int = 1  # with `gather` or `ring`: neighbours that exchange heads for tokens instead
    weight: Number = 1  # ranks over which weights are cut and gathered layer by layer (InternEvo's weight parallel)
    offload_optimizer: float = 0.0  # share of the optimizer's state that lives in host memory
    offload_activations: float = 0.0
    waiting: Number = 0  # micro-batches in flight beyond the schedule's: two in vocabulary parallelism
    loss_in_place: bool = False  # the loss overwrites its logits, in the precision of the run
    fused_loss: Number = False  # the head and its loss make the logits of a piece of the tokens at a time
    document_length: float | None = None  # mean length of a packed document that attention stays inside; None: whole
    framework: str = "trainwright"  # a file of `cost/frameworks/`
    on_cpu: bool = False
    gpus_per_node: int = 8

    @property
    def world_size(self) -> Number:
        return self.tensor * self.context * self.data * self.pipeline

    @property
    def local_tokens(self) -> Number:
        """Tokens of a micro-batch on one context rank."""
        return self.sequence_length * self.micro_batch / self.context

    @property
    def head_ranks(self) -> Number:
        """Context ranks that share the heads of a tensor rank, each of all their tokens."""
        if self.context_exchange == "all_to_all":
            return self.context
        return where(self.context > 1, self.context_heads, 1)

    @property
    def element_bytes(self) -> int:
        """Of a number that is computed with; operators cast to fp8 what they read."""
        return 4 if self.precision == "fp32" else 2

    @property
    def tokens_per_step(self) -> Number:
        return self.sequence_length * self.micro_batch * self.micro_batches * self.data

    @property
    def optimizer_shards(self) -> Number:
        """Ranks that share one copy of the optimizer's state: the ZeRO group times the context ranks."""
        return where(self.zero >= 1, self.zero_group * self.context, 1)

    @classmethod
    def of(cls, stage: TrainingStage, *, on_cpu: bool = False) -> "Case":
        """The step of a planned training stage."""
        layout = stage.layout
        return cls(
            model=ModelShape.of(stage.model),
            sequence_length=stage.sequence_length,
            precision=stage.precision,
            tensor=layout.tensor,
            pipeline=layout.pipeline,
            virtual_pipeline=layout.virtual_pipeline,
            context=layout.context,
            data=layout.data,
            sequence_parallel=layout.sequence_parallel,
            zero=layout.zero,
            zero_group=layout.zero_group,
            micro_batch=layout.micro_batch,
            micro_batches=layout.micro_batches,
            schedule=layout.schedule,
            recompute=layout.recompute,
            recompute_modules=layout.recompute_modules or ("core_attention",),
            recompute_layers=layout.recompute_layers,
            keep_gathered=layout.keep_gathered,
            context_exchange=layout.context_exchange,
            context_heads=layout.context_heads,
            weight=layout.weight,
            offload_optimizer=1.0 * ("optimizer" in layout.offload),
            offload_activations=1.0 * ("activations" in layout.offload),
            fused_loss=stage.loss == "fused",
            gpus_per_node=stage.placement.ranks_per_node,
            on_cpu=on_cpu,
        )


# Logits of a micro-batch in fp32, beyond which `loss = "auto"` never holds them all. To do without takes a third more
# of the head's time (8 N H V operations for 6): 1 to 4 % of a step of the presets. From here on it frees 2 GiB or more.
_FUSED_BEYOND_BYTES = 4 << 30


def fuses_loss(wanted: Literal["auto", "logits", "fused"], tokens: Number, entries: Number) -> Number:
    """Whether so many tokens of a rank's micro-batch, and entries of its vocabulary, are given the fused loss."""
    if wanted == "auto":
        return 4 * tokens * entries > _FUSED_BEYOND_BYTES
    return wanted == "fused"


@dataclass(frozen=True, slots=True)
class Part:
    """The part of the model on one pipeline rank: what makes ranks unlike each other. May be arrays, as in a Case."""

    pipeline_rank: Number
    layers: Number  # of all its chunks
    embedding: Number  # 1 if it holds the token embedding, else 0
    head: Number


def parts_of(stage: TrainingStage) -> tuple[Part, ...]:
    """One for each pipeline rank of a planned training stage. A reward model has no head to speak of: one row."""
    parts = []
    scores = isinstance(stage, RewardStage)
    for rank in range(stage.layout.pipeline):
        own = [chunk for chunk in stage.placement.chunks if chunk.pipeline_rank == rank]
        layers = sum(chunk.last_layer - chunk.first_layer for chunk in own)
        parts.append(
            Part(
                rank,
                layers,
                int(any(chunk.embedding for chunk in own)),
                int(any(chunk.head for chunk in own) and not scores),
            )
        )
    return tuple(parts)


def even_part(case: Case, pipeline_rank: Number) -> Part:
    """What a rank holds when layers are dealt evenly, as Megatron does."""
    first, last = pipeline_rank == 0, pipeline_rank == case.pipeline - 1
    if case.schedule in V_SCHEDULES:
        last = first
    return Part(pipeline_rank, case.model.layers / case.pipeline, first * 1, last * 1)
