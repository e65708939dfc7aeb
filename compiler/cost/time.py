"""Step time by a roofline with one efficiency figure and the pipeline's bubble. Rough: 10 to 20 % on tuned runs.

    T = hardware FLOPs of the step / (ranks * peak * efficiency) * (1 + (p - 1) / (v * m))

p pipeline ranks, v chunks a rank, m micro-batches. The efficiencies are medians over published runs of dense models
(of the dense bf16 peak, causal FLOPs); with them the formula is off by 17 % on average over 866 rows, by far more for
small models, long pipelines and slow networks, since communication is not counted.
"""

from trainwright.compiler.cost.flops import model_flops_per_token, recomputed_flops_per_token
from trainwright.spec.plan import Hardware, Layout, ModelPlan, PhaseStage, StepTime

# Cards with the same silicon share a figure: A800 with A100, H800 and H200 with H100.
_EFFICIENCY = {
    "v100": 0.40,
    "a100": 0.48,
    "a800": 0.48,
    "h100": 0.45,
    "h800": 0.45,
    "h200": 0.45,
    "b200": 0.37,
    "gb200": 0.40,
}
_OTHER_EFFICIENCY = 0.40


def efficiency(gpu: str) -> float:
    """Share of the peak that training reaches on this card; the files of `spec/hardware/` name it `family-memory`."""
    return _EFFICIENCY.get(gpu.split("-")[0], _OTHER_EFFICIENCY)


def bubble(layout: Layout) -> float:
    """Idle time of the pipeline as a share of its busy time."""
    return (layout.pipeline - 1) / (layout.virtual_pipeline * layout.micro_batches)


def step_time_s(
    model: ModelPlan, layout: Layout, sequence_length: int, tokens_per_step: int, gpu: str, peak_flops: float
) -> float:
    """Seconds of one optimizer step on cards of `peak_flops` FLOP/s each."""
    flops_per_token = model_flops_per_token(model, sequence_length)
    flops_per_token += recomputed_flops_per_token(model, sequence_length, layout.recompute)
    busy_s = tokens_per_step * flops_per_token / (layout.world_size * peak_flops * efficiency(gpu))
    return busy_s * (1 + bubble(layout))


def step_time(stage: PhaseStage, hardware: Hardware) -> StepTime:
    """The step of a planned phase on cards whose peak is known."""
    if hardware.peak_flops is None:
        raise ValueError(f"no peak is known of `{hardware.name}`")
    time = step_time_s(
        stage.model, stage.layout, stage.sequence_length, stage.tokens_per_step, hardware.name, hardware.peak_flops
    )
    idle = bubble(stage.layout)
    busy = time / (1 + idle)
    parts = {"compute": busy, "bubble": time - busy}
    return StepTime(
        time_s=time, low_s=time, high_s=time, parts=parts, chunks=(), transfer_s=0.0, bubble=idle / (1 + idle)
    )
