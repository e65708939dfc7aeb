"""What failures and checkpoints leave of a phase's time.

Failures of a job on n devices come at random, on average every M = (GPU-hours between failures) / n. Each costs a
restart R and the work since the last checkpoint; training stands still for the d seconds of a save, after every t
seconds of training. The expected wall time per second of training that is kept is exact for exponential times between
failures, also where one comes during a save or a restart (Daly 2006, "A higher order estimate of the optimum checkpoint
interval", equation 13):

    M exp(R / M) (exp((t + d) / M) - 1) / t

Its best t is Daly's equation 37, which for d << M is Young's sqrt(2 d M) (1974).

A save takes what the fullest node has to write, at the rate of a node or of the whole storage. Our runtime gathers the
optimizer's state on the first rank of each data and context group, so that one rank of each tensor and pipeline rank
writes; gathering and copying from the device are faster than storage and not counted, nor is reading at a restart
(part of R).
"""

import math
from collections import Counter
from dataclasses import dataclass

from trainwright.compiler.cost.case import Case, parts_of
from trainwright.compiler.cost.parameters import part_parameters
from trainwright.spec.plan import Goodput, PpoStage, TrainingStage

# Bytes per parameter in a checkpoint of ours: bf16 weights, fp32 masters and two moments; or fp32 weights and moments.
_CHECKPOINT_BYTES = {"bf16": 2 + 12, "fp32": 4 + 8}
_LARGEST_EXPONENT = 300.0  # a run gets nowhere long before, and floats end soon after


@dataclass(frozen=True, slots=True)
class Reliability:
    """What a cluster does to a run, in seconds and bytes."""

    device_seconds_between_failures: float
    restart_s: float
    node_bytes_per_s: float  # to storage
    total_bytes_per_s: float | None  # of all nodes together; None: as many as the nodes give


def goodput(stage: TrainingStage, step_s: float, cluster: Reliability) -> Goodput:
    """Of a phase whose steps take `step_s` each."""
    phase_s = stage.steps * step_s
    between_s = cluster.device_seconds_between_failures / stage.layout.world_size
    written = checkpoint_bytes(stage)
    save_s = max(written.values()) / cluster.node_bytes_per_s
    if cluster.total_bytes_per_s is not None:
        save_s = max(save_s, sum(written.values()) / cluster.total_bytes_per_s)
    interval_s = min(_interval_s(stage, step_s), phase_s)
    share = kept_share(interval_s, save_s, between_s, cluster.restart_s)
    best_s = min(max(best_interval_s(save_s, between_s), step_s), phase_s)
    return Goodput(
        share=share,
        failures=phase_s / share / between_s,
        save_s=save_s,
        checkpoint_bytes=sum(written.values()),
        checkpoint_interval_s=interval_s,
        best_interval_s=best_s,
        best_share=kept_share(best_s, save_s, between_s, cluster.restart_s),
        between_failures_s=between_s,
    )


def kept_share(interval_s: float, save_s: float, between_s: float, restart_s: float) -> float:
    """The share of wall time that trains steps which are kept, above 0."""
    stretch = min((interval_s + save_s) / between_s, _LARGEST_EXPONENT)
    restart = min(restart_s / between_s, _LARGEST_EXPONENT)
    return interval_s / (between_s * math.exp(restart) * math.expm1(stretch))


def best_interval_s(save_s: float, between_s: float) -> float:
    """Seconds of training between two checkpoints at which most of the time is kept (Daly's equation 37)."""
    if save_s >= 2 * between_s:
        return between_s
    ratio = save_s / (2 * between_s)
    return math.sqrt(2 * save_s * between_s) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - save_s


def checkpoint_bytes(stage: TrainingStage) -> Counter[int]:
    """How much each node writes of one checkpoint."""
    case, layout = Case.of(stage), stage.layout
    written: Counter[int] = Counter()
    models = 2 if isinstance(stage, PpoStage) else 1  # the actor and the critic
    for part in parts_of(stage):
        size = models * int(part_parameters(case, part)) * _CHECKPOINT_BYTES[stage.precision]
        first = part.pipeline_rank * layout.tensor * layout.context * layout.data
        for rank in range(first, first + layout.tensor):
            written[rank // stage.placement.ranks_per_node] += size
    return written


def _interval_s(stage: TrainingStage, step_s: float) -> float:
    """Seconds of training between two checkpoints, as the spec has it; the phase ends with one in any case."""
    plan = stage.checkpoint
    if plan.every_steps is not None:
        return plan.every_steps * step_s
    return math.inf if plan.every_seconds is None else plan.every_seconds
