"""The layouts of those phases that leave a size of theirs open."""

from trainwright.compiler.chain import start_of
from trainwright.compiler.draft import Draft, Pass
from trainwright.compiler.search.ask import question_of
from trainwright.compiler.search.question import Request, is_open
from trainwright.compiler.search.result import Search, shards_of


def search_layouts(draft: Draft) -> None:
    questions = {index: question_of(draft, index) for index in _open_phases(draft)}
    request = draft.request or Request()
    device = draft.hardware.figures if questions else None
    if device is None or device.peak(draft.spec.run.precision) is None:
        draft.search = Search(request, draft.opened, {}, {}) if questions else None
        return
    from trainwright.compiler.search.search import search  # numpy comes with it

    topologies = enumerate(draft.open_topologies)
    pinned = {index: shards_of(topology) for index, topology in topologies if index not in questions}
    starts = {index: start_of(draft.spec.phases, index) for index in range(len(draft.spec.phases))}
    draft.search = search(questions, pinned, starts, device, request, draft.opened)


def _open_phases(draft: Draft) -> list[int]:
    return [index for index, topology in enumerate(draft.open_topologies) if is_open(topology)]


def _needs_of_a_search(draft: Draft) -> tuple[str, ...]:
    return ("spec.cluster", "spec.kernels", "spec.run", "model", "hardware", "courses") if _open_phases(draft) else ()


SEARCH_LAYOUTS = Pass(
    search_layouts,
    needs=("spec.phases", "open_topologies", "opened"),
    gives=("search",),
    also=_needs_of_a_search,
)
