"""Which kernels each operator of a training stage may be run by, best first.

What `trainwright.kernels` takes on a machine, as data: the compiler imports none of it, and knows neither packages nor
what was validated there.
"""

import msgspec

from trainwright.compiler.draft import Draft, Pass
from trainwright.compiler.graph import StageGraph
from trainwright.spec.plan import AnyStage, TrainingStage

_HEAD_SIZE = 256  # the largest that the portable kernels and flash-attn know
_HOPPER_HEAD_SIZES = (64, 128)
_ROW_WISE = ("rms_norm", "rope", "swiglu")


def name_kernels(draft: Draft) -> None:
    device = draft.hardware.device
    draft.named = StageGraph(_named(stage, device) for stage in draft.placed)


def kernels_of(stage: TrainingStage, device: str) -> dict[str, tuple[str, ...]]:
    """Operator -> kernels on a "cpu" or "cuda" device; the last one can always run."""
    fused = ("portable", "torch") if device == "cuda" else ("torch",)
    kernels = {"attention": _attention(stage, device), **dict.fromkeys(_ROW_WISE, fused)}
    return kernels | ({"linear_cross_entropy": fused} if stage.loss == "fused" else {"cross_entropy": ("torch",)})


def _attention(stage: TrainingStage, device: str) -> tuple[str, ...]:
    wanted = stage.attention
    if wanted == "portable":
        return ("portable", "sdpa") if device == "cuda" else ("portable",)
    if wanted == "hopper":
        return ("hopper", "portable", "sdpa")
    if wanted != "auto":
        return (wanted,)
    if device == "cpu" or stage.precision == "fp32" or stage.model.head_size > _HEAD_SIZE:
        return ("sdpa",)
    hopper = ("hopper",) if stage.model.head_size in _HOPPER_HEAD_SIZES else ()
    return (*hopper, "portable", "flash-attn", "sdpa")


def _named(stage: AnyStage, device: str) -> AnyStage:
    if not isinstance(stage, TrainingStage):
        return stage
    return msgspec.structs.replace(stage, operators=kernels_of(stage, device))


NAME_KERNELS = Pass(name_kernels, needs=("placed", "hardware"), gives=("named",))
