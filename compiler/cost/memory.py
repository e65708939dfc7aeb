"""Memory of the fullest rank on each pipeline rank: model states exact, activations and logits by simple formulas.

Model states follow Megatron-core 0.16.1 as the runtime sets it up (gradients kept and reduced in fp32), in bytes per
parameter that the rank holds, z being the ranks that share the optimizer's state:

    precision  weights  gradients  optimizer                      where to look
    bf16       2        4          12 / z  master and two moments  DistributedOptimizer, shard_fp32_from_float16_groups
    bf16       2        4          12      without sharding        Float16OptimizerWithFloat16Params
    fp32       4        4          8 / z   two moments             DistributedOptimizer, shard_fp32_groups (views)
    fp32       4        4          8       without sharding        FP32Optimizer

Exact but for the padding of the distributed optimizer's buffers: under 64 elements a tensor.

Activations per layer and token, bf16, attention that keeps no scores (Korthikanti et al. 2022, arXiv 2205.05198,
with gated MLP and grouped queries; a model without dropout):

    A = 8*h/t1 + (2*h*(1 + 2k/a) + 2*h + 6*f) / t,   t1 = t with sequence parallelism, else 1

8h: inputs of both norms, of qkv and of fc1; then Q, K, V; attention's output; gate, up and their product. fp32 doubles
all. Known error against Megatron's own logs: 1 to 4 %, up to 8 % (a large gradient's temporary is missing). Not
counted: CUDA context, communicators, fragmentation.
"""

from fractions import Fraction
from typing import Literal

from trainwright.compiler.cost.parameters import rank_parameters
from trainwright.spec.plan import Layout, ModelChunk, ModelPlan, RankMemory

Precision = Literal["bf16", "fp32"]

_WEIGHT_BYTES = {"bf16": 2, "fp32": 4}
_OPTIMIZER_BYTES = {"bf16": 12, "fp32": 8}
_GRADIENT_BYTES = 4
# bf16: the logits and their fp32 copy (of 2, 4, 6 and 10, 6 fits Megatron's golden runs). fp32: logits and gradient.
_LOGIT_BYTES = {"bf16": 6, "fp32": 8}


def optimizer_shards(layout: Layout) -> int:
    """Ranks that share one copy of the optimizer's state: the ZeRO group times the context ranks."""
    return layout.zero_group * layout.context if layout.zero else 1


def estimate_rank_memory(
    model: ModelPlan,
    layout: Layout,
    chunks: tuple[ModelChunk, ...],
    pipeline_rank: int,
    sequence_length: int,
    precision: Precision,
) -> RankMemory:
    """The memory of the ranks on `pipeline_rank`, in bytes; they are alike up to the padding of shards."""
    own = [chunk for chunk in chunks if chunk.pipeline_rank == pipeline_rank]
    parameters = rank_parameters(model, chunks, pipeline_rank, layout.tensor)
    shard = -(-parameters // optimizer_shards(layout))
    parts = {
        "parameters_bytes": parameters * _WEIGHT_BYTES[precision],
        "gradients_bytes": parameters * _GRADIENT_BYTES,
        "optimizer_bytes": shard * _OPTIMIZER_BYTES[precision],
        "activations_bytes": _activations(model, layout, own, pipeline_rank, sequence_length, precision),
        "logits_bytes": 0,
    }
    if any(chunk.head for chunk in own):
        tokens = _local_tokens(layout, sequence_length)
        parts["logits_bytes"] = int(_LOGIT_BYTES[precision] * tokens * model.vocab_size / layout.tensor)
    return RankMemory(
        pipeline_rank=pipeline_rank,
        activations={"layers": parts["activations_bytes"]},
        communication_bytes=0,
        temporaries_bytes=0,
        framework_bytes=0,
        total_bytes=sum(parts.values()),
        peak="the first backward pass",
        binds=max(parts, key=lambda name: parts[name]).removesuffix("_bytes"),
        **parts,
    )


def passes_in_flight(layout: Layout, pipeline_rank: int) -> Fraction:
    """Micro-batches whose activations a rank keeps at once, in units of all the layers it holds.

    1F1B: the warm-up of the later ranks. Interleaved: counted in chunks, 1 / virtual_pipeline of a rank each.
    """
    remaining = layout.pipeline - pipeline_rank
    if layout.schedule == "1f1b":
        return Fraction(min(layout.micro_batches, remaining))
    chunks = layout.virtual_pipeline
    warmup = 2 * (remaining - 1) + (chunks - 1) * layout.pipeline + 1
    return Fraction(min(layout.micro_batches * chunks, warmup), chunks)


def _local_tokens(layout: Layout, sequence_length: int) -> Fraction:
    return Fraction(sequence_length * layout.micro_batch, layout.context)


def _activations(
    model: ModelPlan,
    layout: Layout,
    own: list[ModelChunk],
    pipeline_rank: int,
    sequence_length: int,
    precision: Precision,
) -> int:
    tokens = _local_tokens(layout, sequence_length) * (2 if precision == "fp32" else 1)
    norm_shards = layout.tensor if layout.sequence_parallel else 1
    attention_width = model.heads * model.head_size
    qkv = Fraction(2 * attention_width * (model.heads + 2 * model.kv_heads), model.heads)
    layer = (
        Fraction(8 * model.hidden_size, norm_shards) + (qkv + 2 * attention_width + 6 * model.ffn_size) / layout.tensor
    )
    layer_input = Fraction(2 * model.hidden_size, norm_shards)
    layers = sum(chunk.last_layer - chunk.first_layer for chunk in own)
    in_flight = passes_in_flight(layout, pipeline_rank)
    # Without stored scores there is nothing that "selective" could drop.
    kept = layers * in_flight * layer
    if layout.recompute == "full":
        kept = layers * in_flight * layer_input + layer  # every layer's input, and one layer alive while it is redone
    if any(chunk.embedding for chunk in own):
        kept += in_flight * layer_input
    return int(kept * tokens)
