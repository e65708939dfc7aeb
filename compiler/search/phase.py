"""The search for one phase: memory first, then time by the closed form, then the best of those exactly."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trainwright.compiler.capacity import TIGHT
from trainwright.compiler.search.price import exactly, peaks_of, times_of
from trainwright.compiler.search.question import Question
from trainwright.compiler.search.result import Candidate, PhaseSearch
from trainwright.compiler.search.space import Space, legal_layouts
from trainwright.spec.device import HardwareFile
from trainwright.spec.plan import Layout

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_EXACT = 16  # layouts whose pipeline is simulated
_FAMILIES = 8  # of those, the fastest of so many families: layouts of one family differ little
_TOO_LARGE = 3  # layouts that would be faster, but do not fit
_TIMED = 2.0  # a layout that needs more than so many times the memory is no near miss


@dataclass(frozen=True)
class _Priced:
    """The layouts of a space in one row, with their peaks and, as far as they were asked, their times."""

    space: Space
    group: "NDArray[np.int64]" = field(repr=False)
    row: "NDArray[np.int64]" = field(repr=False)
    peak: "NDArray[np.float64]" = field(repr=False)
    time: "NDArray[np.float64]" = field(repr=False)
    family: "NDArray[np.int64]" = field(repr=False)

    def layout(self, place: int) -> Layout:
        group = self.space.groups[int(self.group[place])]
        return group.layout(int(self.row[place]))


def search_phase(question: Question, device: HardwareFile) -> PhaseSearch:
    """The best layouts of a phase on devices whose speed is known, the best of each family, fastest first."""
    import numpy as np

    limit = TIGHT * device.memory_bytes if device.memory_bytes else np.inf
    space = legal_layouts(question)
    priced = _price(question, space, device, limit)
    order = np.lexsort((priced.peak, priced.time))  # stable: ties keep the order of the space
    fits = priced.peak[order] <= limit
    fitting, others = order[fits], order[~fits]
    best = [exactly(question, priced.layout(place), device) for place in _worth_simulating(priced, fitting)]
    best = [each for each in best if each.memory.total_bytes <= limit]
    best.sort(key=lambda each: (each.step.time_s, each.memory.total_bytes))
    fastest = best[0].step.time_s if best else np.inf
    too_large = [
        exactly(question, priced.layout(place), device)
        for place in _one_a_family(priced, others[priced.time[others] < fastest])[:_TOO_LARGE]
    ]
    too_large.sort(key=lambda each: (each.step.time_s, each.memory.total_bytes))
    smallest = None
    if not best and len(space):
        smallest = exactly(question, priced.layout(int(np.argmin(priced.peak))), device)
    return PhaseSearch(
        question=question,
        legal=len(space),
        left_out=space.left_out,
        fit=len(fitting),
        limit_bytes=limit if device.memory_bytes else None,
        best=_best_a_family(best),
        too_large=tuple(each for each in _best_a_family(too_large) if each.step.time_s < fastest),
        smallest=smallest,
    )


def fastest_s(question: Question, device: HardwareFile) -> float | None:
    """Seconds of the fastest step of all layouts that fit, by the closed form; None if none fits."""
    import numpy as np

    limit = TIGHT * device.memory_bytes if device.memory_bytes else np.inf
    priced = _price(question, legal_layouts(question), device, limit)
    times = priced.time[priced.peak <= limit]
    return float(times.min()) if len(times) else None


def _price(question: Question, space: Space, device: HardwareFile, limit: float) -> _Priced:
    import numpy as np

    size = len(space)
    priced = _Priced(
        space,
        group=np.repeat(np.arange(len(space.groups)), [len(group) for group in space.groups]),
        row=np.concatenate([np.arange(len(group)) for group in space.groups] or [np.arange(0)]),
        peak=np.empty(size),
        time=np.full(size, np.inf),
        family=np.concatenate([group.families for group in space.groups] or [np.arange(0)]),
    )
    start = 0
    for group in space.groups:
        here = slice(start, start + len(group))
        priced.peak[here] = peaks_of(question, group, device)
        near = np.flatnonzero(priced.peak[here] <= _TIMED * limit)
        priced.time[start + near] = times_of(question, group.take(near), device)
        start += len(group)
    return priced


def _worth_simulating(priced: _Priced, order: "NDArray[np.int64]") -> list[int]:
    """The fastest layouts by the closed form, and the fastest of each of the fastest families."""
    families = _one_a_family(priced, order)[:_FAMILIES]
    return list(dict.fromkeys([*families, *(int(place) for place in order[: _EXACT - len(families)])]))


def _one_a_family(priced: _Priced, order: "NDArray[np.int64]") -> list[int]:
    import numpy as np

    _, first = np.unique(priced.family[order], return_index=True)
    return [int(place) for place in order[np.sort(first)]]


def _best_a_family(candidates: list[Candidate]) -> tuple[Candidate, ...]:
    found: dict[tuple[int, ...], Candidate] = {}
    for each in candidates:
        found.setdefault(each.family, each)
    return tuple(found.values())
