"""What each phase is expected to take in time, energy and money; nothing where the card's peak is unknown.

    duration = steps * seconds of a step / share of the time that is kept (goodput)
    energy   = GPU-hours * the device's power under load * the site's power over its devices' (PUE)

The device is taken to draw its full power all the time and its host is not counted (the convention of the LLaMA report,
2302.13971, section 6), so low and high of energy follow those of the time alone.
"""

from dataclasses import dataclass

from trainwright.compiler.cost.flops import model_flops_per_token, recomputed_flops_per_token
from trainwright.compiler.cost.goodput import Reliability, goodput
from trainwright.compiler.cost.time import phase_step_time
from trainwright.compiler.draft import Draft, Pass
from trainwright.spec.plan import Estimate, Goodput, PhaseStage, StepTime
from trainwright.spec.spec import Cluster
from trainwright.spec.units import quantity


def estimate_time(draft: Draft) -> None:
    draft.estimates = tuple(_estimate(draft, stage) for stage in draft.graph if isinstance(stage, PhaseStage))


@dataclass(frozen=True, slots=True)
class _Totals:
    """Of a whole phase."""

    goodput: Goodput
    duration_s: float
    duration_low_s: float
    duration_high_s: float

    @classmethod
    def of(cls, stage: PhaseStage, step: StepTime, cluster: Reliability) -> "_Totals":
        kept = goodput(stage, step.time_s, cluster)
        low, high = (goodput(stage, each, cluster).share for each in (step.low_s, step.high_s))
        return cls(
            goodput=kept,
            duration_s=stage.steps * step.time_s / kept.share,
            duration_low_s=stage.steps * step.low_s / low,
            duration_high_s=stage.steps * step.high_s / high,
        )


def _estimate(draft: Draft, stage: PhaseStage) -> Estimate:
    hardware = draft.hardware
    flops_per_token = model_flops_per_token(stage.model, stage.sequence_length)
    recomputed = recomputed_flops_per_token(stage.model, stage.sequence_length, stage.layout.recompute)
    ranks = stage.layout.world_size
    step = totals = tokens_per_s = mfu = gpu_hours = energy_kwh = None
    if hardware.peak_flops is not None:
        step = phase_step_time(stage, hardware)
        totals = _Totals.of(stage, step, _reliability(draft.spec.cluster))
        tokens_per_s = stage.tokens_per_step / step.time_s
        mfu = flops_per_token * tokens_per_s / (ranks * hardware.peak_flops)
        gpu_hours = totals.duration_s * ranks / 3600
        if hardware.figures.power_watts is not None:
            energy_kwh = gpu_hours * hardware.figures.power_watts / 1000 * draft.spec.cluster.pue

    def cost(duration_s: float | None) -> float | None:
        price = hardware.price_per_gpu_hour
        return None if duration_s is None or price is None else duration_s * ranks / 3600 * price

    return Estimate(
        stage=stage.name,
        model_flops_per_token=flops_per_token,
        hardware_flops_per_token=flops_per_token + recomputed,
        memory=draft.memory[stage.name],
        capacity_bytes=hardware.memory_bytes,
        step=step,
        tokens_per_s=tokens_per_s,
        mfu=mfu,
        goodput=totals and totals.goodput,
        duration_s=totals and totals.duration_s,
        duration_low_s=totals and totals.duration_low_s,
        duration_high_s=totals and totals.duration_high_s,
        gpu_hours=gpu_hours,
        energy_kwh=energy_kwh,
        cost=cost(totals and totals.duration_s),
        cost_low=cost(totals and totals.duration_low_s),
        cost_high=cost(totals and totals.duration_high_s),
    )


def _reliability(cluster: Cluster) -> Reliability:
    return Reliability(
        device_seconds_between_failures=3600 * quantity(cluster.failures.mean_time_between, "gpu-hours"),
        restart_s=cluster.failures.restart,
        node_bytes_per_s=cluster.storage.per_node,
        total_bytes_per_s=cluster.storage.total,
    )


ESTIMATE_TIME = Pass(estimate_time, needs=("graph", "memory", "hardware", "spec.cluster"), gives=("estimates",))
