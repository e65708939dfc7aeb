"""The layouts of those phases that leave a size of theirs open."""

from trainwright.compiler.chain import start_of
from trainwright.compiler.draft import Draft, Pass
from trainwright.compiler.search.question import Question, Request, is_open
from trainwright.compiler.search.result import Search


def search_layouts(draft: Draft) -> None:
    questions = {index: question(draft, index) for index in _open_phases(draft)}
    request = draft.request or Request()
    device = draft.hardware.figures if questions else None
    if device is None or device.peak(draft.spec.run.precision) is None:
        draft.search = Search(request, draft.opened, {}, {}) if questions else None
        return
    from trainwright.compiler.search.search import search  # numpy comes with it

    phases = draft.spec.phases
    starts = {index: start_of(phases, index) for index in questions}
    draft.search = search(questions, starts, device, request, draft.opened)


def question(draft: Draft, index: int) -> Question:
    """What a phase asks."""
    cluster, course = draft.spec.cluster, draft.courses[index]
    return Question(
        phase=draft.spec.phases[index].name,
        model=draft.model,
        precision=draft.spec.run.precision,
        sequence_length=draft.spec.phases[index].sequence_length,
        sequences=course.sequences_per_step,
        steps=course.steps,
        topology=draft.open_topologies[index],
        nodes=cluster.nodes,
        gpus_per_node=cluster.gpus_per_node,
        everything=draft.request is not None and draft.request.everything,
    )


def _open_phases(draft: Draft) -> list[int]:
    return [index for index, topology in enumerate(draft.open_topologies) if is_open(topology)]


def _needs_of_a_search(draft: Draft) -> tuple[str, ...]:
    return ("spec.cluster", "spec.run", "model", "hardware", "courses") if _open_phases(draft) else ()


SEARCH_LAYOUTS = Pass(
    search_layouts,
    needs=("spec.phases", "open_topologies", "opened"),
    gives=("search",),
    also=_needs_of_a_search,
)
