"""Seconds of one optimizer step, from its operators and exchanges.

    T = (pipeline + gradient reduction + parameter gather + optimizer + host) * (1 + jitter)

The pipeline is simulated event by event with each rank's own chunk times (`schedule`), so the embedding's and the
head's weight on its ends count. What is exposed of the reduction has no backward pass left to hide under, of the gather
no forward pass; how much of one they use is the framework's. Jitter: every doubling of the nodes makes the slowest of
them slower by a little.

`quick_step_time` is the same with a closed form for the pipeline, m*max(t) + (sum(t) - max(t)) / v over the ranks'
micro-batch times t, and works on arrays of layouts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from trainwright.compiler.cost.case import Case, Part, even_part, parts_of
from trainwright.compiler.cost.framework import TimeProfile, load_framework
from trainwright.compiler.cost.network import Group, exposed
from trainwright.compiler.cost.numeric import Number, ceil_divide, log2, maximum, minimum, where
from trainwright.compiler.cost.orders import SCHEDULES
from trainwright.compiler.cost.pace import Pace, Pacer
from trainwright.compiler.cost.parameters import part_parameters
from trainwright.compiler.cost.schedule import timeline
from trainwright.spec.device import HardwareFile
from trainwright.spec.plan import ChunkTime, Hardware, StepTime, TrainingStage

# Of a step, for each doubling of the nodes: of the order that weak scaling loses in NVIDIA's dgxc-benchmarking.
JITTER = 0.003
# Of runs that constants were fitted on, 80 % took between these and one estimate more; see bench/fit_efficiency.py.
_BELOW, _ABOVE = 0.11, 0.09
_EXCHANGES = ("tensor exchange", "context exchange", "weight gather", "pipeline transfer", "gradient reduction")
_DOUBT = 0.3  # of exchanges that nothing hides: what is known of a network before it is measured; ours
_SIMULATED = 3000  # passes; a longer pipeline is simulated over fewer micro-batches and continued at its steady pace
# The idle share that a schedule leaves of 1F1B's, where the simulation does not have it (2401.10241, 2405.15362).
_IDLE = {"zb-1p": 1 / 3, "zb-2p": 0.0, "zbv": 0.0, "zb-v": 0.0, "v-half": 1 / 2, "v-min": 2 / 3}


@dataclass(frozen=True, slots=True)
class Sync:
    """What follows the pipeline on one of its ranks, exposed, in seconds."""

    reduction: Number
    gather: Number
    optimizer: Number

    @property
    def total_s(self) -> Number:
        return self.reduction + self.gather + self.optimizer


def step_time(
    case: Case, parts: Sequence[Part], hardware: HardwareFile, profile: TimeProfile | None = None
) -> StepTime:
    """The step of a case, with `parts` on its pipeline ranks; `profile` in place of the framework's own.

    Raises ValueError if the hardware has no peak in the case's precision or no memory bandwidth.
    """
    profile = profile or load_framework(case.framework).time
    pacer = Pacer(case, hardware, profile)
    paces = [pacer.part(part) for part in parts]
    chunks = _chunks(case, pacer, parts, paces)
    transfer_s = float(_transfer(case, pacer))
    span, waited = _span(case, chunks, transfer_s, _overlapped(case, profile))
    m = float(case.micro_batches)
    busiest = max(pace.total_s for pace in paces)
    mean = sum((pace for pace in paces[1:]), paces[0]) * (m / len(paces))
    syncs = [sync(case, part, pace, pacer, hardware, profile) for part, pace in zip(parts, paces, strict=True)]
    slowest = max(syncs, key=lambda each: each.total_s)
    kinds = {kind: float(seconds) for kind, seconds in mean.kinds.items()}
    kinds["stage imbalance"] = m * busiest - mean.total_s
    kinds["pipeline bubble"] = span - waited - m * busiest
    kinds["pipeline transfer"] = waited
    kinds["gradient reduction"] = float(slowest.reduction)
    kinds["parameter gather"] = float(slowest.gather)
    kinds["optimizer"] = float(slowest.optimizer)
    kinds["host"] = profile.step_s
    kinds["jitter"] = sum(kinds.values()) * float(_jitter(case))
    time_s = sum(kinds.values())
    doubtful = _DOUBT * sum(kinds.get(kind, 0.0) for kind in (*_EXCHANGES, "parameter gather"))
    return StepTime(
        time_s=time_s,
        low_s=time_s - math.hypot(_BELOW * time_s, doubtful),
        high_s=time_s + math.hypot(_ABOVE * time_s, doubtful),
        parts={kind: seconds for kind, seconds in kinds.items() if abs(seconds) > 1e-12},
        chunks=chunks,
        transfer_s=transfer_s,
        bubble=max(0.0, 1 - mean.total_s / span) if span else 0.0,  # one rank is never idle but by rounding
    )


def quick_step_time(case: Case, hardware: HardwareFile, profile: TimeProfile | None = None) -> Number:
    """Seconds of a step with layers dealt evenly; the case's sizes may be arrays of one shape."""
    profile = profile or load_framework(case.framework).time
    pacer = Pacer(case, hardware, profile)
    first, last = even_part(case, 0), even_part(case, case.pipeline - 1)
    middle = replace(first, embedding=0, head=0)
    paces = [pacer.part(part) for part in (first, middle, last)]
    ends = where(case.pipeline > 1, paces[0].total_s + paces[2].total_s, paces[0].total_s)
    total = ends + maximum(case.pipeline - 2, 0) * paces[1].total_s
    longest = where(case.pipeline > 1, maximum(*(pace.total_s for pace in paces)), paces[0].total_s)
    idle = _IDLE.get(case.schedule, 1.0) * (total - longest) / case.virtual_pipeline
    span = case.micro_batches * longest + idle + _waited(case, _transfer(case, pacer), _overlapped(case, profile))
    after = maximum(
        *(
            sync(case, part, pace, pacer, hardware, profile).total_s
            for part, pace in ((first, paces[0]), (last, paces[2]))
        )
    )
    return (span + after + profile.step_s) * (1 + _jitter(case))


def phase_step_time(stage: TrainingStage, hardware: Hardware) -> StepTime:
    """The step of a planned phase on the plan's hardware. Raises ValueError if no peak is known of it."""
    return step_time(Case.of(stage, on_cpu=hardware.device == "cpu"), parts_of(stage), hardware.figures)


# --- pipeline --------------------------------------------------------------------------------------------------------


def _chunks(case: Case, pacer: Pacer, parts: Sequence[Part], paces: Sequence[Pace]) -> tuple[ChunkTime, ...]:
    """A rank's layers dealt evenly to its chunks, the embedding in the first and the head in the last of them."""
    count = int(case.virtual_pipeline)
    chunks = []
    for part, pace in zip(parts, paces, strict=True):
        embedding, head = pacer.embedding * part.embedding, pacer.head * part.head
        for chunk in range(count):
            own = [embedding] * (chunk == 0) + [head] * (chunk == count - 1)
            seconds = {}
            for name in ("forward_s", "backward_s", "weight_s"):
                around = getattr(embedding, name) + getattr(head, name)
                layers = (getattr(pace, name) - around) / count
                seconds[name] = float(layers + sum(getattr(each, name) for each in own))
            chunks.append(ChunkTime(pipeline_rank=int(part.pipeline_rank), chunk=chunk, **seconds))
    return tuple(chunks)


def _overlapped(case: Case, profile: TimeProfile) -> bool:
    """Megatron's 1F1B stands still while it sends and receives; its switch is for the other schedules."""
    return profile.pipeline_overlap and case.schedule != "1f1b"


def _transfer(case: Case, pacer: Pacer) -> Number:
    """Seconds to hand one micro-batch's activations to the next pipeline rank."""
    size = pacer.operators.bytes * pacer.operators.tokens * case.model.hidden_size / pacer.operators.norm_shards
    distance = case.tensor * case.context * case.data
    return where(case.pipeline > 1, pacer.network.send(size, distance), 0.0)


def _waited(case: Case, transfer_s: Number, overlapped: bool) -> Number:
    """Transfers that hold up a pipeline: all of a steady rank's if they block, else those on the way in and out."""
    hops = 2 * (case.pipeline - 1)
    if overlapped:
        return hops * transfer_s
    return (hops + 2 * case.micro_batches * case.virtual_pipeline) * transfer_s


def _span(case: Case, chunks: tuple[ChunkTime, ...], transfer_s: float, overlapped: bool) -> tuple[float, float]:
    """Seconds from the first forward to the last backward pass, and how many of them are for transfers."""
    p, v, m = int(case.pipeline), int(case.virtual_pipeline), int(case.micro_batches)
    if p == 1:
        return m * sum(chunk.forward_s + chunk.backward_s for chunk in chunks), 0.0
    usable = case.schedule in SCHEDULES and (case.schedule != "interleaved" or m % p == 0)
    most = max(2, _SIMULATED // (2 * p * p * v)) * p  # whole groups of p, at least two
    if usable and m <= most:
        return _simulated(case, chunks, m, transfer_s, overlapped)
    if usable and most * p * v <= 2 * _SIMULATED:
        long, short = (_simulated(case, chunks, count, transfer_s, overlapped) for count in (most, most - p))
        groups = (m - most) / p
        return long[0] + groups * (long[0] - short[0]), long[1] + groups * (long[1] - short[1])
    ranks = [sum(c.forward_s + c.backward_s for c in chunks if c.pipeline_rank == rank) for rank in range(p)]
    waited = _waited(case, transfer_s, overlapped)
    return m * max(ranks) + _IDLE.get(case.schedule, 1.0) * (sum(ranks) - max(ranks)) / v + waited, waited


def _simulated(
    case: Case, chunks: tuple[ChunkTime, ...], micro_batches: int, transfer_s: float, overlapped: bool
) -> tuple[float, float]:
    line = timeline(chunks, micro_batches, case.schedule, transfer_s, overlapped=overlapped)
    # These end as staggered as they begin, and step without waiting for each other (2401.10241, section 4).
    staggered = case.schedule in ("zb-2p", "zb-v")
    return line.longest_rank_s if staggered else line.span_s, line.exposed_s


# --- after the pipeline ----------------------------------------------------------------------------------------------


def sync(case: Case, part: Part, pace: Pace, pacer: Pacer, hardware: HardwareFile, profile: TimeProfile) -> Sync:
    """Gradients reduced, the optimizer's step, weights gathered: what of it nothing hides."""
    parameters = part_parameters(case, part) / case.weight
    shards = case.optimizer_shards
    network = pacer.network
    whole = Group(case.data * case.context, case.tensor)
    inside = Group(shards, case.tensor)
    across = Group(case.data / case.zero_group if case.zero else 1, case.tensor * case.context * case.zero_group)
    gradients, weights = profile.reduce_bytes * parameters, pacer.operators.bytes * parameters
    gather: Number = 0.0
    if case.zero == 0:
        reduction = _bucketed(network.all_reduce, gradients, whole, profile)
    elif case.zero == 3:
        reduction = _bucketed(network.all_reduce, gradients / shards, across, profile)
    else:
        times = case.micro_batches if case.zero == 2 else 1
        reduction = times * _bucketed(network.all_gather, gradients, inside, profile)
        reduction = reduction + _bucketed(network.all_reduce, gradients / shards, across, profile)
        if profile.gather_by == "broadcast":
            gather = network.broadcasts(weights, inside)
        else:
            gather = _bucketed(network.all_gather, weights, inside, profile)
    # Chunks finish one after the other over the last micro-batches of an interleaved schedule, and begin so.
    spread = where(case.virtual_pipeline > 1, minimum(case.pipeline, case.micro_batches), 1)
    window = where(case.zero == 2, case.micro_batches, spread) * pace.backward_s
    bandwidth = hardware.memory_bytes_per_s or 1.0
    share = hardware.efficiency.memory[-1][1]
    optimizer = parameters / shards * profile.optimizer_bytes / (bandwidth * share)
    return Sync(
        reduction=exposed(reduction, window, profile.reduce_overlap),
        gather=exposed(gather, spread * pace.forward_s, profile.gather_overlap),
        optimizer=optimizer,
    )


def _bucketed(exchange, size_bytes: Number, group: Group, profile: TimeProfile) -> Number:  # type: ignore[no-untyped-def]
    """Seconds of an exchange that is done in buckets."""
    buckets = maximum(1, ceil_divide(size_bytes, profile.bucket_bytes))
    return buckets * exchange(size_bytes / buckets, group)


def _jitter(case: Case) -> Number:
    return JITTER * log2(case.world_size / case.gpus_per_node)
