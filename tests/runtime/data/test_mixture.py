"""Which source each sequence comes from."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainwright.runtime.data.mixture import schedule

WEIGHTS = st.lists(st.integers(0, 60), min_size=1, max_size=8).filter(sum)


def test_the_tiny_mixture_interleaves() -> None:
    sources, _ = schedule([0.6, 0.15, 0.25]).take(0, 20)
    assert "".join("nps"[source] for source in sources) == "nnsnpnsnnsnnpnsnnpns"


@pytest.mark.parametrize("weights", [[0.52, 0.2, 0.1, 0.08, 0.1], [1e-3, 0.999], [0.5, 0.5], [7.0], [1 / 3] * 3])
def test_every_source_has_its_share_at_any_moment(weights: list[float]) -> None:
    sources, _ = schedule(weights).take(0, 5000)
    shares = np.array(weights) / sum(weights)
    counts = np.cumsum(sources[:, None] == np.arange(len(weights)), axis=0)
    assert np.abs(counts - np.arange(1, 5001)[:, None] * shares).max() < 1


@settings(max_examples=50, deadline=None)
@given(weights=WEIGHTS)
def test_any_mixture_has_its_shares(weights: list[int]) -> None:
    sources, ranks = schedule([float(weight) for weight in weights]).take(0, 700)
    counts = np.cumsum(sources[:, None] == np.arange(len(weights)), axis=0)
    ideal = np.arange(1, 701)[:, None] * np.array(weights) / sum(weights)
    assert np.abs(counts - ideal).max() < 1
    assert (counts[np.arange(700), sources] - 1 == ranks).all()


def test_weights_that_are_no_simple_fractions_are_kept_to_a_sixteenth_bit() -> None:
    weights = [2**0.5, 3**0.5, 1e-9, 5**0.5, 0.0]
    made = schedule(weights)
    period = len(made.source_P)
    assert period == 1 << 16
    assert np.abs(made.counts_K - np.array(weights) / sum(weights) * period).max() <= 1
    assert made.counts_K[2] == 1
    assert made.counts_K[4] == 0


def test_any_stretch_is_what_the_whole_has_there() -> None:
    made = schedule([0.3, 0.7])
    sources, ranks = made.take(0, 100)
    for start, stop in ((0, 1), (37, 64), (99, 100)):
        part_sources, part_ranks = made.take(start, stop)
        assert (part_sources == sources[start:stop]).all()
        assert (part_ranks == ranks[start:stop]).all()
    far_sources, far_ranks = made.take(10**12, 10**12 + 10)
    assert (far_sources == sources[:10]).all()
    assert (far_ranks - ranks[:10]).tolist() == (np.array([3, 7]) * 10**11)[far_sources].tolist()
