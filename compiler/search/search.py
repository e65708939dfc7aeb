"""The search over layouts of all phases on one cluster, or over the sizes of the cluster too."""

from collections.abc import Mapping

from trainwright.compiler.search.choose import choose
from trainwright.compiler.search.phase import search_phase
from trainwright.compiler.search.question import Question, Request
from trainwright.compiler.search.result import PhaseSearch, Search
from trainwright.spec.device import HardwareFile


def search(
    questions: Mapping[int, Question],
    starts: Mapping[int, int | None],
    device: HardwareFile,
    request: Request,
    opened: bool,
) -> Search:
    """The layouts of those phases, by index; `starts` names the phase that each one starts from."""
    phases = _search_phases(questions, device)
    return Search(request=request, opened=opened, phases=phases, choices=choose(phases, starts))


def _search_phases(questions: Mapping[int, Question], device: HardwareFile) -> dict[int, PhaseSearch]:
    return {index: search_phase(question, device) for index, question in questions.items()}
