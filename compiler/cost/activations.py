"""Activations of a pipeline rank: what its layers keep between a forward and a backward pass, and how often.

One line per saved tensor in `saved_by_layer`, after Korthikanti et al. 2022 (arXiv 2205.05198), with gated MLP and
grouped queries. How many copies of each a framework keeps stands in `frameworks/*.toml`. Sizes in bytes.
"""

from trainwright.compiler.cost.case import Case, Part
from trainwright.compiler.cost.framework import MemoryProfile
from trainwright.compiler.cost.numeric import Number, maximum, minimum, where

_IDS_BYTES = 12  # of a token of the batch: its id, and whether it counts

# What `selective` drops of a layer, by module.
_DROPPED = {
    "core_attention": ("softmax sums", "attention scores"),
    "norm": ("inputs of qkv and MLP", "norm statistics"),
    "activation": ("activation product",),
    "mlp": ("gate and up", "activation product"),
}


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
    element = case.element_bytes
    factor = 1 if case.precision == "fp8" else element  # of what only a product of matrices reads again
    hidden = hidden_elements(case)
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


def kept_activations(case: Case, part: Part, profile: MemoryProfile) -> dict[str, Number]:
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
    hidden = case.element_bytes * hidden_elements(case) * case.local_tokens
    kept = {kind: size * whole * in_flight for kind, size in layer.items()}
    kept["inputs of recomputed layers"] = profile.full_recompute_input * hidden * checkpointed * in_flight
    if case.model.dropout:
        kept["dropout masks"] += part.embedding * hidden_elements(case) * case.local_tokens * in_flight
    kept["head's inputs"] = profile.head_input * hidden * part.head * losses_waiting(case)
    kept = {kind: size * (1 - case.offload_activations) for kind, size in kept.items()}
    kept["batch"] = _IDS_BYTES * case.local_tokens * case.micro_batches
    return kept


def losses_waiting(case: Case) -> Number:
    """Micro-batches whose loss waits for its backward pass."""
    return case.micro_batches if case.schedule == "gpipe" else 1


def _dropped(case: Case) -> set[str]:
    return {kind for module in case.recompute_modules for kind in _DROPPED[module]}


def recomputed_layer(case: Case, part: Part, profile: MemoryProfile) -> Number:
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


def hidden_elements(case: Case) -> Number:
    """Elements of a token's hidden state on a rank: sequence parallelism splits the tokens."""
    return case.model.hidden_size / where(case.sequence_parallel, case.tensor, 1)


def gathers(case: Case) -> Number:
    """1 where sequence-parallel ranks gather each other's tokens."""
    return where(case.sequence_parallel, 1, 0) * (case.tensor > 1)
