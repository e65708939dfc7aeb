"""What the terminal and the page both say of a plan: which rank is fullest, what the whole takes, a layout in words."""

from collections.abc import Callable
from dataclasses import dataclass

from trainwright.spec.plan import Estimate, Hardware, Layout, PhaseStage, Plan, RankMemory, TrainingStage

# The terms of a rank's memory in the order in which they are stacked: letter, name, bytes.
TERMS: tuple[tuple[str, str, Callable[[RankMemory], int]], ...] = (
    ("P", "parameters", lambda memory: memory.parameters_bytes),
    ("G", "gradients", lambda memory: memory.gradients_bytes),
    ("O", "optimizer", lambda memory: memory.optimizer_bytes),
    ("A", "activations", lambda memory: memory.activations_bytes),
    ("L", "logits", lambda memory: memory.logits_bytes),
    ("C", "communication", lambda memory: memory.communication_bytes),
    ("T", "temporaries", lambda memory: memory.temporaries_bytes),
    ("F", "framework", lambda memory: memory.framework_bytes),
)


@dataclass(frozen=True)
class Fullest:
    """The rank that needs most of its card: in which phase, and the pipeline rank's memory."""

    estimate: Estimate
    memory: RankMemory

    @property
    def share(self) -> float | None:
        """Of the card; None if its size is not known."""
        capacity = self.estimate.capacity_bytes
        return None if capacity is None else self.memory.total_bytes / capacity


@dataclass(frozen=True)
class Range:
    """An estimate and its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Totals:
    """What all stages take together whose steps are known. None where one's time is not known even so."""

    duration_s: Range | None
    gpu_hours: float | None
    energy_kwh: float | None
    cost: Range | None


def phases_of(plan: Plan) -> list[PhaseStage]:
    """The stages of pre-training, in the plan's order."""
    return [stage for stage in plan.stages if isinstance(stage, PhaseStage)]


def trained_of(plan: Plan) -> list[TrainingStage]:
    """All stages that train a model, in the plan's order."""
    return [stage for stage in plan.stages if isinstance(stage, TrainingStage)]


def estimate_of(plan: Plan, stage: str) -> Estimate:
    """The estimate of a training stage; KeyError if there is none."""
    for estimate in plan.estimates:
        if estimate.stage == stage:
            return estimate
    raise KeyError(stage)


def fullest_of(estimate: Estimate) -> Fullest:
    return Fullest(estimate, max(estimate.memory, key=lambda memory: memory.total_bytes))


def fullest(plan: Plan) -> Fullest:
    """Of all stages. All run on the same cards, so bytes compare."""
    return max(map(fullest_of, plan.estimates), key=lambda each: each.memory.total_bytes)


def totals(plan: Plan) -> Totals:
    """The sums over the stages; an interval's ends are summed too, since what makes one stage slow slows all."""
    estimates = [estimate for estimate in plan.estimates if not estimate.is_open]
    return Totals(
        duration_s=_sum([_range(each.duration_s, each.duration_low_s, each.duration_high_s) for each in estimates]),
        gpu_hours=_plain_sum([each.gpu_hours for each in estimates]),
        energy_kwh=_plain_sum([each.energy_kwh for each in estimates]),
        cost=_sum([_range(each.cost, each.cost_low, each.cost_high) for each in estimates]),
    )


def axes(layout: Layout) -> str:
    """The axes wider than one in short: `TP 2, SP, PP 4, DP 8`."""
    sizes = {"TP": layout.tensor, "CP": layout.context, "PP": layout.pipeline, "VPP": layout.virtual_pipeline}
    parts = [f"{name} {size:,}" for name, size in (*sizes.items(), ("DP", layout.data)) if size > 1]
    if layout.sequence_parallel:
        parts.insert(1, "SP")
    return ", ".join(parts) or "one process"


def ranks(hardware: Hardware) -> int:
    return hardware.nodes * hardware.gpus_per_node


def cluster(hardware: Hardware) -> str:
    """Nodes, devices and how many in all: `128 x 8 a800-80gb: 1,024 GPUs`."""
    count = ranks(hardware)
    if count == 1:
        return f"1 {'process' if hardware.device == 'cpu' else 'GPU'} ({hardware.name})"
    noun = "processes" if hardware.device == "cpu" else "GPUs"
    return f"{count:,} {noun} ({hardware.nodes:,} x {hardware.gpus_per_node:,} {hardware.name})"


def batch(phase: PhaseStage) -> str:
    """A step's sequences: ranks x micro-batches x sequences of each."""
    layout = phase.layout
    within = f"{layout.micro_batches:,} micro-batches of {layout.micro_batch:,}"
    return f"{phase.sequences_per_step:,} sequences = {layout.data:,} x {within}"


def _range(value: float | None, low: float | None, high: float | None) -> Range | None:
    return None if value is None or low is None or high is None else Range(value, low, high)


def _sum(ranges: list[Range | None]) -> Range | None:
    known = [each for each in ranges if each is not None]
    if not known or len(known) < len(ranges):
        return None
    return Range(sum(e.value for e in known), sum(e.low for e in known), sum(e.high for e in known))


def _plain_sum(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None
