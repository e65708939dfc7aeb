"""Memory of the ranks on one pipeline rank: what is there all the time, and what is there at the moment of the peak.

Model states, bytes per parameter that the rank holds (Megatron-core 0.16.1 as our runtime sets it up; z ranks share):

    precision  weights  gradients  optimizer                      where to look
    bf16       2        4          12 / z  master and two moments  DistributedOptimizer, shard_fp32_from_float16_groups
    bf16       2        4          12      without sharding        Float16OptimizerWithFloat16Params
    fp32       4        4          8 / z   two moments             DistributedOptimizer, shard_fp32_groups (views)
    fp32       4        4          8       without sharding        FP32Optimizer

ZeRO-2 divides gradients by z as well, ZeRO-3 weights too. Exact but for the padding of buffers: under 64 elements a
tensor.

Activations: one line per saved tensor in `saved_by_layer`, after Korthikanti et al. 2022 (arXiv 2205.05198), with
gated MLP and grouped queries. How many copies of each a framework keeps stands in `frameworks/*.toml`.

The peak is the largest of a few moments of a step (`MOMENTS`). Fragmentation of the allocator is not in it.

Known error: 1.2 % on average against 70 published maxima of torch's allocator under Megatron-LM, 5 to 20 % against
figures of nvidia-smi or of reserved memory (`bench/accuracy.py`); against our own runtime, `bench/traced_memory.py`.
"""

from dataclasses import dataclass

from trainwright.compiler.cost.case import Case, Part, even_part
from trainwright.compiler.cost.framework import MemoryProfile, memory_profile
from trainwright.compiler.cost.numeric import Number, ceil_divide, maximum, minimum, where
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

_ELEMENT_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "fp8": 2}
_IDS_BYTES = 12  # of a token of the batch: its id, and whether it counts

# What `selective` drops of a layer, by module.
_DROPPED = {
    "core_attention": ("softmax sums", "attention scores"),
    "norm": ("inputs of qkv and MLP", "norm statistics"),
    "activation": ("activation product",),
    "mlp": ("gate and up", "activation product"),
}


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
    kept = _kept(case, part, profile)
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
        activations = sum(_kept(case, part, profile).values())
        peak = maximum(*(moment.total(activations) for moment in _moments(case, part, profile)))
        totals.append(sum(_states(case, part, profile)) + peak)
    return everywhere + maximum(*totals)


def _moments(case: Case, part: Part, profile: MemoryProfile) -> tuple[_Moment, ...]:
    """In the order of MOMENTS."""
    in_flight = passes_in_flight(case, part.pipeline_rank)
    return (
        _Moment(1, 0, _logits(case, part, profile), 0),
        _Moment(1, 0, *_head_backward(case, part, profile)),
        _Moment(1, _recomputed_layer(case, part, profile), 0, _layer_backward(case, profile)),
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


def passes_in_flight(case: Case, pipeline_rank: Number) -> Number:
    """Micro-batches whose activations a rank keeps at once, in units of all the layers it holds.

    1F1B: the warm-up of the later ranks. Interleaved: counted in chunks, 1 / virtual_pipeline of a rank each
    (Narayanan et al. 2021). Zero bubble: Qi et al. 2023 (arXiv 2401.10241), 2024 (arXiv 2405.15362), which say a half
    and a third of p for V-Half and V-Min, "and a constant": that of V-Half was chosen on published runs (within half
    a micro-batch of all of them), that of V-Min is a guess.
    """
    ranks, chunks, micro_batches = case.pipeline, case.virtual_pipeline, case.micro_batches
    left = ranks - pipeline_rank
    if case.schedule in ("1f1b", "interleaved"):
        warmup = 2 * (left - 1) + (chunks - 1) * ranks + 1
        interleaved = minimum(micro_batches * chunks, warmup) / chunks
        return where(chunks > 1, interleaved, minimum(micro_batches, left + case.waiting))
    passes = {
        "gpipe": micro_batches,
        "zb-1p": ranks,
        "zb-2p": 2 * ranks - 1,
        "zb-v": ranks,
        "v-half": (ranks + 3) / 2,
        "v-min": ranks / 3 + 4 / 3,
    }
    return minimum(micro_batches, passes[case.schedule] + case.waiting)


def saved_by_layer(case: Case, profile: MemoryProfile) -> dict[str, Number]:
    """Bytes that a layer keeps of one micro-batch for its backward pass, without recomputation."""
    model = case.model
    element = _ELEMENT_BYTES[case.precision]
    factor = 1 if case.precision == "fp8" else element  # of what only a product of matrices reads again
    hidden = _hidden(case)
    query = model.heads * model.head_size / case.tensor
    key = model.kv_heads * model.head_size / case.tensor
    ffn = model.ffn_size / case.tensor
    slots = profile.packed if case.document_length is not None else 0  # of padded documents, a token
    exchanges = case.head_ranks > 1
    key = where(exchanges, maximum(key, case.head_ranks * model.head_size), key)  # of too few each goes to several
    per_token = {
        "norm inputs": profile.norm_input * element * hidden,
        "norm statistics": profile.norm_statistics_bytes * hidden / model.hidden_size,
        "inputs of qkv and MLP": profile.norm_output * factor * where(case.keep_gathered, model.hidden_size, hidden),
        "queries, keys, values": (slots or profile.qkv) * element * (query + 2 * key),
        "rotated queries and keys": profile.rotated * element * (query + key),
        "exchanged attention output": profile.exchanged * element * query * exchanges,
        "attention output": (slots + profile.attention_output) * element * query,
        "gate and up": profile.gate_up * element * ffn * (2 if model.gated else 1),
        "activation product": profile.product * factor * ffn,
        "further copies": profile.extra * element * hidden,
    }
    if model.stored_scores:  # softmax, and with dropout its mask and its result
        score = element + (1 + element if model.dropout else 0)
        per_token["attention scores"] = score * model.heads * case.sequence_length / case.tensor
    else:
        per_token["softmax sums"] = profile.softmax_bytes * model.heads / case.tensor
    if model.dropout:  # one byte an element, after attention and after the MLP
        per_token["dropout masks"] = 2 * hidden
    return {kind: size * case.local_tokens for kind, size in per_token.items()}


def _hidden(case: Case) -> Number:
    """Elements of a token's hidden state on a rank: sequence parallelism splits the tokens."""
    return case.model.hidden_size / where(case.sequence_parallel, case.tensor, 1)


def _gathers(case: Case) -> Number:
    """1 where sequence-parallel ranks gather each other's tokens."""
    return where(case.sequence_parallel, 1, 0) * (case.tensor > 1)


def _shard(case: Case, part: Part) -> Number:
    """Parameters whose optimizer state a rank holds."""
    return ceil_divide(part_parameters(case, part), maximum(case.optimizer_shards, case.weight))


def _states(case: Case, part: Part, profile: MemoryProfile) -> tuple[Number, Number, Number]:
    parameters = part_parameters(case, part)
    shard = _shard(case, part)
    held = where(case.zero >= 3, shard, ceil_divide(parameters, case.weight))
    reduced = where(case.zero >= 2, shard, ceil_divide(parameters, case.weight))
    placeholders = profile.kept_gradient * _ELEMENT_BYTES[case.precision] * sum(layer_matrices(case.model).values())
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


def _kept(case: Case, part: Part, profile: MemoryProfile) -> dict[str, Number]:
    """Activations of all micro-batches in flight, by kind."""
    in_flight = passes_in_flight(case, part.pipeline_rank)
    layer = saved_by_layer(case, profile)
    whole, checkpointed = part.layers, 0 * part.layers
    if case.recompute == "selective":
        layer = {kind: size for kind, size in layer.items() if kind not in _dropped(case)}
    elif case.recompute == "full":
        checkpointed = part.layers
        if case.recompute_layers is not None:
            checkpointed = minimum(part.layers, case.recompute_layers * case.virtual_pipeline)
        whole = part.layers - checkpointed
    hidden = _ELEMENT_BYTES[case.precision] * _hidden(case) * case.local_tokens
    kept = {kind: size * whole * in_flight for kind, size in layer.items()}
    kept["inputs of recomputed layers"] = profile.full_recompute_input * hidden * checkpointed * in_flight
    if case.model.dropout:
        kept["dropout masks"] += part.embedding * _hidden(case) * case.local_tokens * in_flight
    kept["head's inputs"] = profile.head_input * hidden * part.head * _losses(case)
    kept = {kind: size * (1 - case.offload_activations) for kind, size in kept.items()}
    kept["batch"] = _IDS_BYTES * case.local_tokens * case.micro_batches
    return kept


def _losses(case: Case) -> Number:
    """Micro-batches whose loss waits for its backward pass."""
    return case.micro_batches if case.schedule == "gpipe" else 1


def _dropped(case: Case) -> set[str]:
    return {kind for module in case.recompute_modules for kind in _DROPPED[module]}


def _recomputed_layer(case: Case, part: Part, profile: MemoryProfile) -> Number:
    """What one layer makes again while its backward pass runs."""
    layer = saved_by_layer(case, profile)
    everything = sum(layer.values())
    if case.recompute == "selective":
        return sum(size for kind, size in layer.items() if kind in _dropped(case))
    if case.recompute == "full":
        if case.recompute_layers is None:
            return everything
        # Layers that kept everything are done by the time that a chunk's first layers are made again.
        return where(case.recompute_layers * case.virtual_pipeline >= part.layers, everything, 0)
    return everything * 0


def _logits(case: Case, part: Part, profile: MemoryProfile) -> Number:
    """At the moment of the loss. The logits of an fp32 run are their own first wide copy."""
    element = _ELEMENT_BYTES[case.precision]
    wide = 0 if case.loss_in_place else profile.wide_logits
    per_logit = profile.logits * element + 4 * (wide - (wide > 0) * (element == 4))
    waiting = (4 * minimum(1, wide) or element) * (_losses(case) - 1)
    logits = case.local_tokens * case.model.vocab_size / case.tensor * part.head
    held = (per_logit + waiting) * logits + minimum(profile.loss_piece_bytes, 4 * logits / profile.loss_pieces)
    piece, run = _loss_piece(case, profile)
    return where(case.fused_loss, (piece + run + _gathered_for_loss(case)) * part.head, held)


def _loss_piece(case: Case, profile: MemoryProfile) -> tuple[Number, Number]:
    """Logits that the fused loss holds, and of a run of them a copy in fp32."""
    piece = loss_piece_tokens(case, profile) * case.model.vocab_size / case.tensor
    return _ELEMENT_BYTES[case.precision] * piece, minimum(profile.loss_piece_bytes, 4 * piece)


def loss_piece_tokens(case: Case, profile: MemoryProfile) -> Number:
    """As in kernels/linear_cross_entropy.py."""
    rows = profile.fused_piece_bytes * case.tensor // (4 * case.model.vocab_size)
    return minimum(case.local_tokens, maximum(case.model.hidden_size, rows))


def _gathered_for_loss(case: Case) -> Number:
    """The head's whole input, which the fused loss keeps beside the rank's share of it."""
    return _ELEMENT_BYTES[case.precision] * _gathers(case) * case.local_tokens * case.model.hidden_size


def _head_backward(case: Case, part: Part, profile: MemoryProfile) -> tuple[Number, Number]:
    """The logits' gradient; beside it the gradients of the head's weight and of its input.

    The fused loss has no such logits. It adds the weight's gradient up in fp32, of 16-bit products.
    """
    element = _ELEMENT_BYTES[case.precision]
    logits = element * case.local_tokens * case.model.vocab_size / case.tensor * part.head
    weight = profile.table_gradient * embedding_parameters(case.model, case.tensor)
    inputs = element * case.local_tokens * case.model.hidden_size
    piece, run = _loss_piece(case, profile)
    table = embedding_parameters(case.model, case.tensor)
    pieces = piece + 4 * table + maximum(run, (element < 4) * element * table) + _gathered_for_loss(case)
    return where(case.fused_loss, 0, logits), (where(case.fused_loss, pieces, element * weight) + inputs) * part.head


def _layer_backward(case: Case, profile: MemoryProfile) -> Number:
    """The most that the MLP's backward pass holds beyond what was saved, net of the saved tensors it has freed."""
    element, model, tokens = _ELEMENT_BYTES[case.precision], case.model, case.local_tokens
    ffn = model.ffn_size / case.tensor
    width = 2 if model.gated else 1
    gathered = _gathers(case) * tokens * model.hidden_size
    last_product = gathered + tokens * ffn + profile.weight_gradient * ffn * model.hidden_size
    activation = profile.mlp_backward * tokens * ffn
    first_product = (
        tokens * model.hidden_size  # gradient of its input
        + _gathers(case) * tokens * _hidden(case)  # that, scattered
        + profile.weight_gradient * width * ffn * model.hidden_size
        - tokens * ffn  # the product is free, and of gate and up only the gradient is left
    )
    residual = tokens * _hidden(case)
    attention = _gathered_keys(case, profile) - (width + 1) * tokens * ffn  # what the MLP had saved is free
    return element * (residual + maximum(last_product, activation, first_product, attention))


def _gathered_keys(case: Case, profile: MemoryProfile) -> Number:
    """Elements of the sequence's keys and values, and of their fp32 gradients, while gathered attention goes back."""
    if case.context_exchange != "gather" or profile.gathered_keys == 0:
        return case.context * 0
    heads = maximum(case.model.kv_heads / case.tensor / case.head_ranks, 1)
    keys_and_values = 2 * case.context * case.local_tokens * heads * case.model.head_size
    copies = profile.gathered_keys + 4 / _ELEMENT_BYTES[case.precision]
    return where(case.context > case.head_ranks, copies * keys_and_values, 0)


def _embedding_gradient(case: Case, part: Part, profile: MemoryProfile) -> Number:
    element = _ELEMENT_BYTES[case.precision]
    table = profile.table_gradient * embedding_parameters(case.model, case.tensor)
    return element * part.embedding * (table + case.local_tokens * _hidden(case))


def _communication(case: Case, profile: MemoryProfile) -> Number:
    """Buffers of exchanges that live through the step."""
    element, model = _ELEMENT_BYTES[case.precision], case.model
    gather = profile.gather_buffer * _gathers(case) * case.local_tokens * model.hidden_size
    received = (case.pipeline > 1) * case.local_tokens * _hidden(case)
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
