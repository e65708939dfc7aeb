"""The search over layouts of all phases on one cluster."""

from collections.abc import Mapping
from dataclasses import replace

from trainwright.compiler.search.choose import choose
from trainwright.compiler.search.phase import search_phase
from trainwright.compiler.search.question import Question, Request
from trainwright.compiler.search.result import PhaseSearch, Search, Shards
from trainwright.spec.device import HardwareFile


def search(
    questions: Mapping[int, Question],
    pinned: Mapping[int, Shards],
    starts: Mapping[int, int | None],
    device: HardwareFile,
    request: Request,
    opened: bool,
) -> Search:
    """The layouts of those phases, by index; `pinned` has all others, `starts` the phase that each one starts from."""
    phases = _search_phases(questions, device)
    return Search(request=request, opened=opened, phases=phases, choices=choose(phases, pinned, starts))


def _search_phases(questions: Mapping[int, Question], device: HardwareFile) -> dict[int, PhaseSearch]:
    """Phases that differ in name and length alone are one search."""
    found: dict[Question, PhaseSearch] = {}
    for question in questions.values():
        alike = replace(question, phase="", steps=0)
        if alike not in found:
            found[alike] = search_phase(alike, device)
    return {
        index: replace(found[replace(question, phase="", steps=0)], question=question)
        for index, question in questions.items()
    }
