"""Memory of the ranks on one pipeline rank: what is there all the time, and what is there at the moment of the peak.

Model states, bytes per parameter that the rank holds (Megatron-core 0.16.1 as our runtime sets it up; z ranks share):

    precision  weights  gradients  optimizer                      where to look
    bf16       2        4          12 / z  master and two moments  DistributedOptimizer, shard_fp32_from_float16_groups
    bf16       2        4          12      without sharding        Float16OptimizerWithFloat16Params
    fp32       4        4          8 / z   two moments             DistributedOptimizer, shard_fp32_groups (views)
    fp32       4        4          8       without sharding        FP32Optimizer

ZeRO-2 divides gradients by z as well, ZeRO-3 weights too. Exact but for the padding of buffers: under 64 elements a
tensor.

Activations stand in `activations.py`, the head and its loss in `loss_memory.py`.

The peak is the largest of a few moments of a step (`MOMENTS`). Fragmentation of the allocator is not in it.

Known error: 1.2 % on average against 70 published maxima of torch's allocator under Megatron-LM, 5 to 20 % against
figures of nvidia-smi or of reserved memory (`bench/accuracy.py`); against our own runtime, `bench/traced_memory.py`.
"""

from dataclasses import dataclass

from trainwright.compiler.cost.activations import (
    gathers,
    hidden_elements,
    kept_activations,
    passes_in_flight,
    recomputed_layer,
)
from trainwright.compiler.cost.case import Case, Part, even_part
from trainwright.compiler.cost.framework import MemoryProfile, memory_profile
from trainwright.compiler.cost.loss_memory import head_backward, logits_at_the_loss
from trainwright.compiler.cost.numeric import Number, ceil_divide, maximum, where
from trainwright.compiler.cost.parameters import (
    embedding_parameters,
    layer_matrices,
    layer_parameters,
    part_parameters,
)
from trainwright.spec.plan import RankMemory

MOMENTS = (
    "the loss",
    "the head's backward pass",
    "the first layer's backward pass",
    "the embedding's gradient",
    "the optimizer's step",
)


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes at the moment of the peak. May be arrays, as in a Case."""

    parameters: Number
    gradients: Number
    optimizer: Number
    activations: dict[str, Number]  # by kind
    logits: Number
    communication: Number
    temporaries: Number
    framework: Number  # outside of the allocator
    moment: Number  # index into MOMENTS

    @property
    def states(self) -> Number:
        """What stays between two steps."""
        return self.parameters + self.gradients + self.optimizer

    @property
    def activations_total(self) -> Number:
        return sum(self.activations.values())

    @property
    def allocated(self) -> Number:
        """What torch's allocator hands out: to be compared with `torch.cuda.max_memory_allocated`."""
        return self.states + self.activations_total + self.logits + self.communication + self.temporaries

    @property
    def total(self) -> Number:
        return self.allocated + self.framework


@dataclass(frozen=True, slots=True)
class _Moment:
    """What is there at a moment, beside what is there all the time."""

    kept: Number  # share of the activations of all micro-batches in flight
    redone: Number
    logits: Number
    temporaries: Number

    def total(self, activations: Number) -> Number:
        return self.kept * activations + self.redone + self.logits + self.temporaries


def rank_memory(case: Case, part: Part) -> Memory:
    """The memory of the ranks that hold `part`; they are alike up to the padding of shards."""
    profile = memory_profile(case)
    parameters, gradients, optimizer = _states(case, part, profile)
    kept = kept_activations(case, part, profile)
    moments = _moments(case, part, profile)
    activations = sum(kept.values())
    peak = _index_of_largest([moment.total(activations) for moment in moments])
    share = _pick(peak, [moment.kept for moment in moments])
    redone = _pick(peak, [moment.redone for moment in moments])
    return Memory(
        parameters=parameters,
        gradients=gradients,
        optimizer=optimizer,
        activations={kind: size * share for kind, size in kept.items()} | {"recomputed layer": redone},
        logits=_pick(peak, [moment.logits for moment in moments]),
        communication=_communication(case, profile),
        temporaries=_pick(peak, [moment.temporaries for moment in moments]) + profile.workspace_bytes,
        framework=_framework(case, profile),
        moment=peak,
    )


def peak_bytes(case: Case) -> Number:
    """The total of the fullest pipeline rank, with layers dealt evenly: that of `rank_memory`, without its parts.

    No rank between the two ends holds more than the first: it has fewer micro-batches in flight and no table.
    """
    profile = memory_profile(case)
    everywhere = _communication(case, profile) + _framework(case, profile) + profile.workspace_bytes
    totals = []
    for part in (even_part(case, 0), even_part(case, case.pipeline - 1)):
        activations = sum(kept_activations(case, part, profile).values())
        peak = maximum(*(moment.total(activations) for moment in _moments(case, part, profile)))
        totals.append(sum(_states(case, part, profile)) + peak)
    return everywhere + maximum(*totals)


def _moments(case: Case, part: Part, profile: MemoryProfile) -> tuple[_Moment, ...]:
    """In the order of MOMENTS."""
    in_flight = passes_in_flight(case, part.pipeline_rank)
    return (
        _Moment(1, 0, logits_at_the_loss(case, part, profile), 0),
        _Moment(1, 0, *head_backward(case, part, profile)),
        _Moment(1, recomputed_layer(case, part, profile), 0, _layer_backward(case, profile)),
        _Moment((in_flight - 1) / in_flight, 0, 0, _embedding_gradient(case, part, profile)),
        _Moment(0, 0, 0, profile.step_bytes * _shard(case, part)),
    )


def estimate_rank_memory(case: Case, part: Part) -> RankMemory:
    """The memory of a rank as the plan carries it, in whole bytes."""
    memory = rank_memory(case, part)
    activations = {kind: int(size) for kind, size in memory.activations.items() if size > 0}
    parts = {
        "parameters_bytes": int(memory.parameters),
        "gradients_bytes": int(memory.gradients),
        "optimizer_bytes": int(memory.optimizer),
        "activations_bytes": sum(activations.values()),
        "logits_bytes": int(memory.logits),
        "communication_bytes": int(memory.communication),
        "temporaries_bytes": int(memory.temporaries),
        "framework_bytes": int(memory.framework),
    }
    return RankMemory(
        pipeline_rank=int(part.pipeline_rank),
        activations=activations,
        total_bytes=sum(parts.values()),
        peak=MOMENTS[memory.moment],
        binds=max(parts, key=lambda name: parts[name]).removesuffix("_bytes"),
        **parts,
    )


def _shard(case: Case, part: Part) -> Number:
    """Parameters whose optimizer state a rank holds."""
    return ceil_divide(part_parameters(case, part), maximum(case.optimizer_shards, case.weight))


def _states(case: Case, part: Part, profile: MemoryProfile) -> tuple[Number, Number, Number]:
    parameters = part_parameters(case, part)
    shard = _shard(case, part)
    held = where(case.zero >= 3, shard, ceil_divide(parameters, case.weight))
    reduced = where(case.zero >= 2, shard, ceil_divide(parameters, case.weight))
    placeholders = profile.kept_gradient * case.element_bytes * sum(layer_matrices(case.model).values())
    placeholders = placeholders / case.tensor
    if case.precision == "fp32":
        return 4 * held, 4 * reduced + placeholders, 8 * shard * (1 - case.offload_optimizer)
    # ZeRO-3 without a separate master keeps its shard in fp32 alone.
    alone = where(case.zero >= 3, not profile.separate_master, False)
    weight_bytes = where(alone, 4, 2)  # in fp8 two copies, one of them transposed, take the place of 16 bits
    optimizer_bytes = where(alone, 8, 12)
    gradient_bytes = profile.gradient_bytes
    if case.precision == "fp16" and profile.fp16_gradient_bytes is not None:
        gradient_bytes = profile.fp16_gradient_bytes
    return (
        weight_bytes * held,
        gradient_bytes * reduced + placeholders,
        optimizer_bytes * shard * (1 - case.offload_optimizer),
    )


def _layer_backward(case: Case, profile: MemoryProfile) -> Number:
    """The most that the MLP's backward pass holds beyond what was saved, net of the saved tensors it has freed."""
    element, model, tokens = case.element_bytes, case.model, case.local_tokens
    ffn = model.ffn_size / case.tensor
    width = 2 if model.gated else 1
    gathered = gathers(case) * tokens * model.hidden_size
    last_product = gathered + tokens * ffn + profile.weight_gradient * ffn * model.hidden_size
    activation = profile.mlp_backward * tokens * ffn
    first_product = (
        tokens * model.hidden_size  # gradient of its input
        + gathers(case) * tokens * hidden_elements(case)  # that, scattered
        + profile.weight_gradient * width * ffn * model.hidden_size
        - tokens * ffn  # the product is free, and of gate and up only the gradient is left
    )
    residual = tokens * hidden_elements(case)
    attention = _gathered_keys(case, profile) - (width + 1) * tokens * ffn  # what the MLP had saved is free
    return element * (residual + maximum(last_product, activation, first_product, attention))


def _gathered_keys(case: Case, profile: MemoryProfile) -> Number:
    """Elements of the sequence's keys and values, and of their fp32 gradients, while gathered attention goes back."""
    if case.context_exchange != "gather" or profile.gathered_keys == 0:
        return case.context * 0
    heads = maximum(case.model.kv_heads / case.tensor / case.head_ranks, 1)
    keys_and_values = 2 * case.context * case.local_tokens * heads * case.model.head_size
    parts = 1 if case.on_cpu else where(heads % 2 == 0, 2, 1)  # of the heads, one after the other
    copies = profile.gathered_keys / parts + 4 / case.element_bytes
    return where(case.context > case.head_ranks, copies * keys_and_values, 0)


def _embedding_gradient(case: Case, part: Part, profile: MemoryProfile) -> Number:
    element = case.element_bytes
    table = profile.table_gradient * embedding_parameters(case.model, case.tensor)
    return element * part.embedding * (table + case.local_tokens * hidden_elements(case))


def _communication(case: Case, profile: MemoryProfile) -> Number:
    """Buffers of exchanges that live through the step."""
    element, model = case.element_bytes, case.model
    gather = profile.gather_buffer * gathers(case) * case.local_tokens * model.hidden_size
    received = (case.pipeline > 1) * case.local_tokens * hidden_elements(case)
    layer = layer_parameters(model, case.tensor)
    whole_weights = where((case.zero >= 3) | (case.weight > 1), profile.gathered_layers * layer, 0)
    whole_gradient = where((case.zero >= 2) | (case.weight > 1), layer, 0)
    bucket = where(case.data * case.context > 1, profile.bucket_bytes, 0)
    return element * (gather + received + whole_weights + whole_gradient) + bucket


def _framework(case: Case, profile: MemoryProfile) -> Number:
    axes = (case.tensor, case.pipeline, case.context, case.data)
    return profile.context_bytes + profile.communicator_bytes * sum(1 * (axis > 1) for axis in axes)


def _index_of_largest(values: list[Number]) -> Number:
    largest, index = values[0], 0
    for position, value in enumerate(values):
        index = where(value > largest, position, index)
        largest = maximum(largest, value)
    return index


def _pick(index: Number, values: list[Number]) -> Number:
    picked = values[0]
    for position, value in enumerate(values):
        picked = where(index == position, value, picked)
    return picked
