"""The card is one that is described in `spec/hardware/`."""

from collections.abc import Iterator

from trainwright.compiler.draft import Check, Draft
from trainwright.compiler.nearest import nearest_name
from trainwright.spec.device import known_hardware
from trainwright.spec.diagnostics import Diagnostic


def check_hardware(draft: Draft) -> Iterator[Diagnostic]:
    gpu = draft.spec.cluster.gpu
    known = known_hardware()
    if gpu not in known:
        where = draft.value_at("cluster", "gpu")
        yield Diagnostic("TW320", f"nothing is known of a gpu `{gpu}`", where, nearest_name(gpu, known))


CHECK_HARDWARE = Check(check_hardware, needs=("spec.cluster",), holds="gpu is known")
