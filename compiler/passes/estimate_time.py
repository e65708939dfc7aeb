"""What each phase is expected to take in time and money; nothing where the card's peak is unknown."""

from trainwright.compiler.cost.flops import model_flops_per_token
from trainwright.compiler.cost.time import step_time_s
from trainwright.compiler.draft import Draft, Pass
from trainwright.spec.plan import Estimate, PhaseStage


def estimate_time(draft: Draft) -> None:
    draft.estimates = tuple(_estimate(draft, stage) for stage in draft.graph if isinstance(stage, PhaseStage))


def _estimate(draft: Draft, stage: PhaseStage) -> Estimate:
    hardware = draft.hardware
    flops_per_token = model_flops_per_token(stage.model, stage.sequence_length)
    step = tokens_per_s = mfu = duration = gpu_hours = cost = None
    if hardware.peak_flops is not None:
        step = step_time_s(
            stage.model,
            stage.layout,
            stage.sequence_length,
            stage.tokens_per_step,
            hardware.name,
            hardware.peak_flops,
        )
        tokens_per_s = stage.tokens_per_step / step
        mfu = flops_per_token * tokens_per_s / (stage.layout.world_size * hardware.peak_flops)
        duration = step * stage.steps
        gpu_hours = duration * stage.layout.world_size / 3600
        if hardware.price_per_gpu_hour is not None:
            cost = gpu_hours * hardware.price_per_gpu_hour
    return Estimate(
        stage=stage.name,
        model_flops_per_token=flops_per_token,
        memory=draft.memory[stage.name],
        capacity_bytes=hardware.memory_bytes,
        step_time_s=step,
        tokens_per_s=tokens_per_s,
        mfu=mfu,
        duration_s=duration,
        gpu_hours=gpu_hours,
        cost=cost,
    )


ESTIMATE_TIME = Pass(estimate_time, needs=("graph", "memory", "hardware"), gives=("estimates",))
