"""Where a layout was searched for, one was found."""

from collections.abc import Iterator

from trainwright.compiler.draft import Check, Draft
from trainwright.compiler.figures import size
from trainwright.compiler.search.advice import advice
from trainwright.compiler.search.result import PhaseSearch
from trainwright.spec.diagnostics import Diagnostic


def check_search(draft: Draft) -> Iterator[Diagnostic]:
    if draft.search is None:
        return
    if not draft.search.phases:
        gpu = draft.spec.cluster.gpu
        message = f"layouts cannot be compared: nothing is known of the speed of `{gpu}`"
        cure = "`trainwright calibrate` measures a machine and writes such a file; or state the sizes"
        yield Diagnostic("TW341", message, draft.value_at("cluster", "gpu"), cure)
        return
    for index, found in draft.search.phases.items():
        if index not in draft.search.choices:
            yield _nothing(draft, index, found)


def _nothing(draft: Draft, index: int, found: PhaseSearch) -> Diagnostic:
    device = draft.hardware.figures
    if found.smallest is None:
        message = f"no layout of phase `{found.question.phase}` on {found.question.world_size:,} ranks is legal"
    else:
        memory = found.smallest.memory
        message = f"none of the {found.legal:,} layouts of phase `{found.question.phase}` fits: the smallest needs "
        message += f"{size(memory.total_bytes)} of the {size(device.memory_bytes or 0)} of `{draft.hardware.name}`"
    where = draft.value_at("phases", index, "name")
    return Diagnostic("TW340", message, where, advice(found.question, device))


CHECK_SEARCH = Check(check_search, needs=("search",), holds="layouts are chosen")
