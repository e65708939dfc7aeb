"""A kernel that was asked for knows the device and the precision."""

from collections.abc import Iterator

from trainwright.compiler.draft import Check, Draft
from trainwright.spec.diagnostics import Diagnostic

_OF_GPUS = {"flash-attn": "flash-attn does", "hopper": "the kernels for Hopper do"}


def check_kernels(draft: Draft) -> Iterator[Diagnostic]:
    wanted = draft.spec.kernels.attention
    where = draft.value_at("kernels", "attention")
    on_cpu = draft.hardware.device == "cpu"
    if wanted == "portable" and on_cpu:
        message = "a CPU interprets the portable kernels, far slower than torch's: for checking alone"
        yield Diagnostic("TW501", message, where, 'train with `attention = "auto"`', severity="warning")
    elif wanted in _OF_GPUS and (on_cpu or draft.spec.run.precision == "fp32"):
        message = f"{_OF_GPUS[wanted]} not know {'CPUs' if on_cpu else 'fp32'}"
        yield Diagnostic("TW502", message, where, '`attention = "auto"` takes what does')


CHECK_KERNELS = Check(
    check_kernels, needs=("spec.kernels", "spec.run", "hardware"), holds="kernels know device and precision"
)
