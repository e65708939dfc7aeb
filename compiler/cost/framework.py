"""How a training framework spends memory and time: `frameworks/NAME.toml`, each coefficient with its reason there.

The same formulas are within 1 % of one framework's measurements and 20 % off another's, because operators keep
different tensors. So what differs is data, and the formulas are shared.
"""

import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from trainwright.compiler.cost.case import Case

_FOLDER = Path(__file__).parent / "frameworks"


class MemoryProfile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is allocated. "Copies" are tensors in the precision of the run, counted per token and layer.

    Widths: h hidden size, q, k query and key-value heads times head size, f MLP width, V vocabulary.
    """

    # Model states, of a 16-bit run; in fp32 gradients are of 4 bytes and there is no master.
    gradient_bytes: Annotated[float, Meta(description="Of a parameter, kept over the step.")] = 4
    fp16_gradient_bytes: Annotated[float | None, Meta(description="The same in fp16, where it differs.")] = None
    separate_master: Annotated[bool, Meta(description="False: with ZeRO-3 the sharded weights are the masters.")] = True
    # Saved by each layer for its backward pass.
    norm_input: Annotated[float, Meta(description="Copies of h, for two norms.")] = 2
    norm_output: Annotated[float, Meta(description="Copies of h: inputs of the products behind two norms.")] = 2
    norm_statistics_bytes: Annotated[float, Meta(description="A token, for two norms.")] = 8
    qkv: Annotated[float, Meta(description="Copies of q + 2k.")] = 1
    rotated: Annotated[float, Meta(description="Copies of q + k, where rotation does not replace them.")] = 0
    attention_output: Annotated[float, Meta(description="Copies of q.")] = 1
    packed: Annotated[
        float, Meta(description="Slots a token where attention copies packed documents into rows; 0: it does not.")
    ] = 0
    exchanged: Annotated[float, Meta(description="Copies of q more under context parallelism.")] = 0
    gathered_keys: Annotated[
        float,
        Meta(description="Copies of the whole sequence's keys and values, beside their fp32 gradients, for a moment."),
    ] = 0
    softmax_bytes: Annotated[float, Meta(description="A token and head: the log of the softmax's sum.")] = 4
    gate_up: Annotated[float, Meta(description="Copies of the MLP's inner width before its activation.")] = 1
    product: Annotated[float, Meta(description="Copies of f: input of the last product.")] = 1
    extra: Annotated[float, Meta(description="Copies of h beyond those.")] = 0
    full_recompute_input: Annotated[float, Meta(description="Copies of h that a recomputed layer keeps.")] = 1
    # The head.
    head_input: Annotated[float, Meta(description="Copies of h: input and output of the last norm.")] = 2
    logits: Annotated[float, Meta(description="Copies of V at the moment of the loss.")] = 1
    wide_logits: Annotated[float, Meta(description="fp32 copies of V then, the logits of an fp32 run too.")]
    loss_piece_bytes: Annotated[
        float, Meta(description="fp32 logits of a piece of a loss made in pieces, at most.")
    ] = 0
    loss_pieces: Annotated[float, Meta(description="Of all logits, at least so many.")] = 8
    fused_piece_bytes: Annotated[float, Meta(description="fp32 logits of a piece of the fused loss, at least.")] = 0
    # Alive for a moment.
    weight_gradient: Annotated[float, Meta(description="Copies of a layer's weight: gradient before it is added.")] = 1
    table_gradient: Annotated[float, Meta(description="The same of the embedding and of the head.")] = 1
    kept_gradient: Annotated[float, Meta(description="Copies of one layer's matrices, kept as placeholders.")] = 0
    mlp_backward: Annotated[float, Meta(description="Copies of f, net of what the MLP's backward frees.")] = 3
    gather_buffer: Annotated[float, Meta(description="Copies of h, whole under sequence parallelism, kept.")] = 1
    gathered_layers: Annotated[float, Meta(description="With ZeRO-3 or weight parallelism: whole at once.")] = 2
    bucket_bytes: Annotated[float, Meta(description="Buffers in which gradients are reduced.")] = 0
    workspace_bytes: Annotated[float, Meta(description="Of libraries, from torch's allocator.")] = 0
    step_bytes: Annotated[float, Meta(description="Temporaries of the optimizer's step, per sharded parameter.")] = 0
    # Outside of the allocator.
    context_bytes: Annotated[float, Meta(description="Of the device's context and libraries.")] = 0
    communicator_bytes: Annotated[float, Meta(description="Of one group's communicator.")] = 0


class TimeProfile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How exchanges and computation overlap, and what an operation costs beyond its work.

    An overlap is the share of the computation beside an exchange under which the exchange can hide.
    """

    # Kernels between the products.
    traffic: Annotated[float, Meta(description="Bytes moved, over those of kernels fused as far as they can be.")] = 1
    traffic_fp32: Annotated[float | None, Meta(description="The same in fp32, where nothing is cast.")] = None
    head_bytes: Annotated[float, Meta(description="Moved per logit around the loss, forward and backward.")] = 26
    forward_kernels: Annotated[float, Meta(description="Of one layer.")] = 16
    backward_kernels: Annotated[float, Meta(description="Of one layer.")] = 28
    dispatch_s: Annotated[float, Meta(description="The host's time for one kernel.")] = 6e-6
    attention: Annotated[float, Meta(description="Its kernel's speed, over that of the device's file.")] = 1
    attention_hopper: Annotated[
        float, Meta(description="The same on Hopper and later, whose asynchronous units older kernels leave idle.")
    ] = 1
    accumulate_bytes: Annotated[float, Meta(description="Moved per parameter as a gradient is added up.")] = 8
    fp8_traffic: Annotated[float, Meta(description="Bytes per element of a product's input that is cast.")] = 5
    # Exchanges.
    reduce_bytes: Annotated[float, Meta(description="Of a gradient on the wire.")] = 4
    bucket_bytes: Annotated[float, Meta(description="Of one exchange of gradients or weights.")] = 1e9
    reduce_overlap: Annotated[float, Meta(description="Of the last backward pass.")] = 0.0
    gather_overlap: Annotated[float, Meta(description="Of the next step's first forward pass.")] = 0.0
    gather_by: Annotated[
        Literal["all-gather", "broadcast"], Meta(description="broadcast: one after another from each rank.")
    ] = "all-gather"
    tensor_forward_overlap: Annotated[float, Meta(description="Of the products beside it.")] = 0.0
    tensor_backward_overlap: float = 0.0
    context_by: Annotated[
        Literal["ring", "all-gather", "all-to-all", "planned"], Meta(description="planned: as the layout says.")
    ] = "ring"
    context_gradient_bytes: Annotated[
        float | None, Meta(description="Of a gradient of keys and values on the wire; as of keys and values if absent.")
    ] = None
    context_overlap: Annotated[float, Meta(description="Of attention.")] = 0.0
    weight_overlap: Annotated[float, Meta(description="ZeRO-3, weight parallelism: of a layer's computation.")] = 0.8
    pipeline_overlap: Annotated[bool, Meta(description="Transfers hold up only who waits for them.")] = False
    # The step.
    optimizer_bytes: Annotated[float, Meta(description="Moved per parameter of a shard.")] = 40
    step_s: Annotated[float, Meta(description="Of the host, once a step.")] = 0.02
    micro_batch_s: Annotated[float, Meta(description="Of the host, once a micro-batch.")] = 0.001


class Framework(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of `frameworks/`."""

    description: str
    memory: MemoryProfile
    memory_on_cpu: MemoryProfile
    time: TimeProfile = TimeProfile()


def known_frameworks() -> list[str]:
    """The names that `Case.framework` knows, sorted."""
    return sorted(file.stem for file in _FOLDER.glob("*.toml"))


@lru_cache
def load_framework(name: str) -> Framework:
    """The profile of that name, in which `memory_on_cpu` has only the figures that are others there than in `memory`.

    Raises FileNotFoundError if there is none, msgspec.ValidationError if it is not one.
    """
    tables = tomllib.loads((_FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    tables["memory_on_cpu"] = tables["memory"] | tables.get("memory_on_cpu", {})
    return msgspec.convert(tables, Framework)


def memory_profile(case: Case) -> MemoryProfile:
    """How the case's framework spends memory where the case runs."""
    framework = load_framework(case.framework)
    return framework.memory_on_cpu if case.on_cpu else framework.memory
