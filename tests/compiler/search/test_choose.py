"""Phases are chosen for together: a change of layout has to save more than it costs."""

from dataclasses import replace

import msgspec
from tests.compiler.search.questions import a100, question

from trainwright.compiler.search.choose import choose, reshard_s
from trainwright.compiler.search.phase import search_phase
from trainwright.compiler.search.result import Candidate, PhaseSearch

CHAIN: dict[int, int | None] = {0: None, 1: 0}


def phases(steps: int) -> dict[int, PhaseSearch]:
    """Two phases that each would rather have another layout, by a tenth of a step of ten seconds."""
    found = search_phase(question(), a100())
    first, second = found.best[:2]

    def lasting(candidate: Candidate, seconds: float) -> Candidate:
        return replace(candidate, step=msgspec.structs.replace(candidate.step, time_s=seconds))

    asked = replace(found.question, steps=steps)
    return {
        0: replace(found, question=asked, best=(lasting(first, 10.0), lasting(second, 11.0))),
        1: replace(found, question=asked, best=(lasting(second, 10.0), lasting(first, 11.0))),
    }


def test_long_phases_have_each_its_own_layout() -> None:
    found = phases(1_000_000)
    choices = choose(found, {}, CHAIN)
    assert [choices[index].candidate for index in (0, 1)] == [found[0].best[0], found[1].best[0]]
    assert choices[0].reshard_s == 0
    assert choices[1].reshard_s == reshard_s(found[1].question) > 0


def test_a_short_phase_keeps_the_layout_it_starts_from() -> None:
    found = phases(1_000_000)
    found[1] = replace(found[1], question=replace(found[1].question, steps=2))
    choices = choose(found, {}, CHAIN)
    assert choices[1].candidate.layout == choices[0].candidate.layout == found[0].best[0].layout
    assert choices[1].reshard_s == 0


def test_phases_that_start_from_the_same_one_are_chosen_for_alike() -> None:
    found = phases(1_000_000)
    found[2] = found[1]
    choices = choose(found, {}, {0: None, 1: 0, 2: 0})
    assert choices[2] == choices[1]


def test_a_phase_that_fits_nowhere_has_no_choice() -> None:
    found = phases(10)
    found[0] = replace(found[0], best=())
    assert list(choose(found, {}, CHAIN)) == [1]


def test_the_checkpoint_goes_through_the_storage_once() -> None:
    asked = question()
    assert reshard_s(asked) == asked.model.parameters * 14 / asked.storage_bytes_per_s


def test_a_short_phase_takes_the_layout_of_a_pinned_one_before_it() -> None:
    found = phases(2)
    later = {1: found[1]}
    like_its_second = found[1].best[1].shards
    assert choose(later, {0: like_its_second}, CHAIN)[1].candidate == found[1].best[1]
    assert choose(later, {0: found[1].best[0].shards}, CHAIN)[1].candidate == found[1].best[0]


def test_a_short_phase_takes_the_layout_of_a_pinned_one_after_it() -> None:
    found = phases(2)
    chosen = choose({0: found[0]}, {1: found[0].best[1].shards}, CHAIN)
    assert chosen[0].candidate == found[0].best[1]
    assert chosen[0].reshard_s == 0
