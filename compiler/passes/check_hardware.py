"""The card is one that a file describes: a shipped one or the user's own, which must be right."""

from collections.abc import Iterator

from trainwright.compiler.draft import Check, Draft
from trainwright.compiler.nearest import nearest_name
from trainwright.spec.device import hardware_path, is_shipped, known_hardware, mistakes
from trainwright.spec.diagnostics import Diagnostic


def check_hardware(draft: Draft) -> Iterator[Diagnostic]:
    gpu = draft.spec.cluster.gpu
    where = draft.value_at("cluster", "gpu")
    path = hardware_path(gpu, draft.root)
    if path is None and gpu.endswith(".toml"):
        cure = "a path is relative to the spec"
        yield Diagnostic("TW321", f"there is no file `{gpu}`", where, cure)
    elif path is None:
        known = known_hardware(draft.root)
        yield Diagnostic("TW320", f"nothing is known of a gpu `{gpu}`", where, nearest_name(gpu, known))
    elif not is_shipped(path):
        for mistake in mistakes(path):
            place = f"{path.name}:{mistake.span.line}" if mistake.span else path.name
            yield Diagnostic("TW321", f"{place}: {mistake.message}", where, mistake.help)


CHECK_HARDWARE = Check(check_hardware, needs=("spec.cluster",), holds="gpu is known")
