"""What each phase is expected to take in time, energy and money; nothing where the card's peak is unknown.

    duration = steps * seconds of a step / share of the time that is kept (goodput)
    energy   = GPU-hours * the device's power under load * the site's power over its devices' (PUE)
    cost     = GPU-hours * price

The device is taken to draw that power all the time and its host is not counted: the convention of the LLaMA report
(2302.13971, section 6). Low and high follow from the step's.
"""

import msgspec

from trainwright.compiler.cost.flops import model_flops_per_token, recomputed_flops_per_token
from trainwright.compiler.cost.goodput import Reliability, goodput
from trainwright.compiler.cost.time import phase_step_time
from trainwright.compiler.draft import Draft, Pass
from trainwright.spec.plan import Estimate, PpoStage, StepTime, TrainingStage
from trainwright.spec.spec import Cluster
from trainwright.spec.units import quantity


def estimate_time(draft: Draft) -> None:
    trained = [_known(draft, stage) for stage in draft.graph if isinstance(stage, TrainingStage)]
    peak = draft.hardware.peak_flops
    draft.estimates = tuple(
        _estimate(draft, stage) if peak is None else _timed(draft, stage, peak) for stage in trained
    )


def _known(draft: Draft, stage: TrainingStage) -> TrainingStage:
    """The stage with as many steps as are expected of it: 0 where nobody can tell."""
    return msgspec.structs.replace(stage, steps=draft.expected_steps.get(stage.name, stage.steps) or 0)


def _estimate(draft: Draft, stage: TrainingStage) -> Estimate:
    """All that can be said without knowing how fast the device is."""
    flops_per_token = model_flops_per_token(stage.model, stage.sequence_length)
    recomputed = recomputed_flops_per_token(
        stage.model, stage.sequence_length, stage.layout.recompute, fused_loss=stage.loss == "fused"
    )
    return Estimate(
        stage=stage.name,
        model_flops_per_token=flops_per_token,
        hardware_flops_per_token=flops_per_token + recomputed,
        memory=draft.memory[stage.name],
        capacity_bytes=draft.hardware.memory_bytes,
        step=None,
        tokens_per_s=None,
        mfu=None,
        goodput=None,
        duration_s=None,
        duration_low_s=None,
        duration_high_s=None,
        gpu_hours=None,
        energy_kwh=None,
        cost=None,
        cost_low=None,
        cost_high=None,
        steps=draft.expected_steps.get(stage.name),
        iterations=draft.iterations.get(stage.name, ()),
        passes=draft.passes.get(stage.name, {}),
    )


def _timed(draft: Draft, stage: TrainingStage, peak_flops: float) -> Estimate:
    hardware, cluster = draft.hardware, draft.spec.cluster
    known, ranks = _estimate(draft, stage), hardware.nodes * hardware.gpus_per_node
    step = _iteration(draft, stage) if isinstance(stage, PpoStage) else phase_step_time(stage, hardware)
    reliability = _reliability(cluster)
    tokens_per_s = stage.tokens_per_step / step.time_s
    if not stage.steps or isinstance(stage, PpoStage):
        mfu = None
    else:
        mfu = known.model_flops_per_token * tokens_per_s / (ranks * peak_flops)
    if not stage.steps:
        return msgspec.structs.replace(known, step=step, tokens_per_s=tokens_per_s)
    steps_s = (step.time_s, step.low_s, step.high_s)
    kept = [goodput(stage, each, reliability) for each in steps_s]
    durations_s = [stage.steps * each / own.share for each, own in zip(steps_s, kept, strict=True)]
    hours = [duration_s * ranks / 3600 for duration_s in durations_s]
    power, price = hardware.figures.power_watts, hardware.price_per_gpu_hour
    costs = [None if price is None else each * price for each in hours]
    return msgspec.structs.replace(
        known,
        step=step,
        tokens_per_s=tokens_per_s,
        mfu=mfu,
        goodput=kept[0],
        duration_s=durations_s[0],
        duration_low_s=durations_s[1],
        duration_high_s=durations_s[2],
        gpu_hours=hours[0],
        energy_kwh=None if power is None else hours[0] * power / 1000 * cluster.pue,
        cost=costs[0],
        cost_low=costs[1],
        cost_high=costs[2],
    )


def _iteration(draft: Draft, stage: PpoStage) -> StepTime:
    """An iteration of PPO as a step: low and high of half and twice its time, for nobody knows how long answers are."""
    chosen = next(each for each in draft.iterations[stage.name] if each.chosen)
    if chosen.time_s is None or chosen.idle is None:
        raise RuntimeError("a device whose peak is known has a speed: estimate_alignment says otherwise")
    return StepTime(
        time_s=chosen.time_s,
        low_s=chosen.time_s / 2,
        high_s=chosen.time_s * 2,
        parts={moment.name: moment.time_s or 0.0 for moment in chosen.moments},
        chunks=(),
        transfer_s=0.0,
        bubble=chosen.idle,
    )


def _reliability(cluster: Cluster) -> Reliability:
    return Reliability(
        device_seconds_between_failures=3600 * quantity(cluster.failures.mean_time_between, "gpu-hours"),
        restart_s=cluster.failures.restart,
        node_bytes_per_s=cluster.storage.per_node,
        total_bytes_per_s=cluster.storage.total,
    )


ESTIMATE_TIME = Pass(
    estimate_time,
    needs=("graph", "memory", "hardware", "spec.cluster", "expected_steps", "iterations", "passes"),
    gives=("estimates",),
)
