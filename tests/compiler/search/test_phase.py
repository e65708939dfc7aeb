"""The best layout is the one that brute force finds with the formulas that price a plan."""

import msgspec
import pytest
from tests.compiler.search.questions import a100, question

from trainwright.compiler.capacity import TIGHT
from trainwright.compiler.search.phase import fastest_s, search_phase
from trainwright.compiler.search.price import exactly, peaks_of, times_of
from trainwright.compiler.search.question import Question
from trainwright.compiler.search.result import Candidate
from trainwright.compiler.search.space import Group, legal_layouts
from trainwright.spec.device import HardwareFile


def by_brute_force(asked: Question, device: HardwareFile) -> list[Candidate]:
    """All layouts that fit, each priced as a plan is, fastest first."""
    priced = [
        exactly(asked, group.layout(row), device) for group in legal_layouts(asked).groups for row in range(len(group))
    ]
    assert device.memory_bytes is not None
    fit = [each for each in priced if each.memory.total_bytes <= TIGHT * device.memory_bytes]
    return sorted(fit, key=lambda each: each.step.time_s)


@pytest.mark.parametrize(
    "asked",
    [
        question(micro_batch=1, virtual_pipeline=1),
        question(recompute="full", length=32_768, sequences=16),
        question(tensor=2, nodes=2),
        question(everything=True, micro_batch=1, pipeline=1, recompute="none", sequence_parallel=True),
    ],
    ids=["one chunk", "long", "two nodes", "all"],
)
def test_the_best_is_the_best_of_all(asked: Question) -> None:
    found, every = search_phase(asked, a100()), by_brute_force(asked, a100())
    assert (found.legal, found.fit) == (len(legal_layouts(asked)), len(every))
    assert found.best[0].layout == every[0].layout


def test_arrays_and_single_numbers_are_priced_alike() -> None:
    asked, device = question(everything=True, nodes=2), a100()
    for group in legal_layouts(asked).groups[::5]:
        row = len(group) // 2
        one = Group.of(group.layout(row))
        assert peaks_of(asked, group, device)[row] == pytest.approx(peaks_of(asked, one, device)[0])
        assert times_of(asked, group, device)[row] == pytest.approx(times_of(asked, one, device)[0])


def test_all_that_is_shown_fits_but_what_is_too_large() -> None:
    device = a100()
    assert device.memory_bytes is not None
    found = search_phase(question(length=32_768, sequences=8), device)
    assert found.best
    assert found.too_large
    assert all(each.memory.total_bytes <= TIGHT * device.memory_bytes for each in found.best)
    assert all(each.memory.total_bytes > TIGHT * device.memory_bytes for each in found.too_large)
    assert all(each.step.time_s < found.best[0].step.time_s for each in found.too_large)


def test_each_family_is_shown_once_fastest_first() -> None:
    best = search_phase(question(), a100()).best
    assert len({each.family for each in best}) == len(best) > 3
    assert [each.step.time_s for each in best] == sorted(each.step.time_s for each in best)


def test_where_nothing_fits_the_smallest_is_known() -> None:
    device = msgspec.structs.replace(a100(), memory_bytes=4 << 30)
    found = search_phase(question(everything=True), device)
    assert found.best == ()
    assert found.smallest is not None
    assert found.smallest.memory.total_bytes > TIGHT * (4 << 30)
    assert fastest_s(question(everything=True), device) is None


def test_a_device_of_unknown_memory_holds_everything() -> None:
    found = search_phase(question(), msgspec.structs.replace(a100(), memory_bytes=None))
    assert found.fit == found.legal
    assert found.limit_bytes is None


def test_where_nothing_is_legal_nothing_is_found() -> None:
    found = search_phase(question(data=3), a100())
    assert (found.legal, found.best, found.smallest) == (0, (), None)
