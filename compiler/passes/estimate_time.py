"""What each phase is expected to take in time and money; nothing where the card's peak is unknown."""

from trainwright.compiler.cost.flops import model_flops_per_token, recomputed_flops_per_token
from trainwright.compiler.cost.time import step_time
from trainwright.compiler.draft import Draft, Pass
from trainwright.spec.plan import Estimate, PhaseStage


def estimate_time(draft: Draft) -> None:
    draft.estimates = tuple(_estimate(draft, stage) for stage in draft.graph if isinstance(stage, PhaseStage))


def _estimate(draft: Draft, stage: PhaseStage) -> Estimate:
    hardware = draft.hardware
    flops_per_token = model_flops_per_token(stage.model, stage.sequence_length)
    recomputed = recomputed_flops_per_token(stage.model, stage.sequence_length, stage.layout.recompute)
    step = tokens_per_s = mfu = duration = gpu_hours = cost = None
    if hardware.peak_flops is not None:
        step = step_time(stage, hardware)
        tokens_per_s = stage.tokens_per_step / step.time_s
        mfu = flops_per_token * tokens_per_s / (stage.layout.world_size * hardware.peak_flops)
        duration = step.time_s * stage.steps
        gpu_hours = duration * stage.layout.world_size / 3600
        if hardware.price_per_gpu_hour is not None:
            cost = gpu_hours * hardware.price_per_gpu_hour
    return Estimate(
        stage=stage.name,
        model_flops_per_token=flops_per_token,
        hardware_flops_per_token=flops_per_token + recomputed,
        memory=draft.memory[stage.name],
        capacity_bytes=hardware.memory_bytes,
        step=step,
        tokens_per_s=tokens_per_s,
        mfu=mfu,
        goodput=None,
        duration_s=duration,
        duration_low_s=duration,
        duration_high_s=duration,
        gpu_hours=gpu_hours,
        energy_kwh=None,
        cost=cost,
        cost_low=cost,
        cost_high=cost,
    )


ESTIMATE_TIME = Pass(estimate_time, needs=("graph", "memory", "hardware"), gives=("estimates",))
