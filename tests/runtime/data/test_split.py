"""De-duplication and the held-out split, decided from digests."""

import numpy as np
from numpy.typing import NDArray

from trainwright.runtime.data.split import DROPPED, HELD_OUT, TRAIN, decide, first_occurrences


def _digests(*numbers: int) -> NDArray[np.uint64]:
    mixed = np.random.default_rng(0).integers(0, 2**63, size=(max(numbers) + 1, 2), dtype=np.uint64)
    return mixed[list(numbers)]


def test_a_duplicate_points_to_the_first_document_with_its_text() -> None:
    assert first_occurrences(_digests(5, 3, 5, 1, 3, 5)).tolist() == [0, 1, 0, 3, 1, 0]


def test_digests_that_share_a_half_are_different() -> None:
    assert first_occurrences(np.array([[1, 2], [1, 3], [2, 2]], dtype=np.uint64)).tolist() == [0, 1, 2]


def test_the_share_is_met_and_the_seed_chooses() -> None:
    digests, kept = _digests(*range(10_000)), np.ones(10_000, dtype=bool)
    one, two = decide(digests, kept, 0.05, seed=1), decide(digests, kept, 0.05, seed=2)
    assert 400 < (one == HELD_OUT).sum() < 600
    assert (one != two).any()


def test_other_documents_move_none() -> None:
    digests = _digests(*range(1000))
    kept = np.ones(1000, dtype=bool)
    whole = decide(digests, kept, 0.1, seed=1)
    assert (decide(digests[200:700], kept[200:700], 0.1, seed=1) == whole[200:700]).all()


def test_with_two_documents_there_is_one_in_each_split() -> None:
    for held_out in (1e-9, 0.999999):
        decisions = decide(_digests(1, 2, 3), np.array([True, False, True]), held_out, seed=1)
        assert sorted(decisions[[0, 2]].tolist()) == [TRAIN, HELD_OUT]
        assert decisions[1] == DROPPED


def test_a_single_document_and_a_share_of_zero_stay_in_training() -> None:
    assert decide(_digests(1), np.array([True]), 0.5, seed=1).tolist() == [TRAIN]
    assert decide(_digests(1, 2), np.array([True, True]), 0.0, seed=1).tolist() == [TRAIN, TRAIN]
