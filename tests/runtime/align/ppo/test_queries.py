"""Which queries come when: a pure function, whole passes over all of them."""

from trainwright.runtime.align.ppo.queries import answer_seeds, draw, mini_batch_of


def drawn(iterations: range, *, round_: int = 1) -> list[int]:
    return [row for i in iterations for row in draw(10, 4, seed=1, round_=round_, iteration=i)]


def test_every_query_comes_once_before_any_comes_again_and_each_pass_has_its_own_order() -> None:
    rows = drawn(range(5))
    assert sorted(rows[:10]) == sorted(rows[10:]) == list(range(10))
    assert rows[:10] != rows[10:]
    assert drawn(range(5), round_=2) != rows
    assert drawn(range(3, 5)) == rows[12:]


def test_an_iteration_may_ask_more_often_than_there_are_queries() -> None:
    rows = draw(3, 7, seed=1, round_=1, iteration=0)
    assert sorted(rows[:3]) == sorted(rows[3:6]) == [0, 1, 2]


def test_seeds_differ_between_places_iterations_and_rounds() -> None:
    all_seeds = [
        seed
        for kind in ("answers", "probes")
        for round_ in (1, 2)
        for iteration in (0, 1)
        for seed in answer_seeds(kind, 5, seed=1, round_=round_, iteration=iteration)
    ]
    assert len(set(all_seeds)) == 40
    assert all(0 <= seed < 2**63 for seed in all_seeds)


def test_mini_batches_part_the_answers_evenly_and_anew_for_every_pass() -> None:
    first, second = (mini_batch_of(8, 4, seed=1, round_=1, iteration=3, epoch=epoch) for epoch in (0, 1))
    assert [len(part) for part in first] == [2] * 4
    assert sorted(answer for part in first for answer in part) == list(range(8))
    assert first != second
