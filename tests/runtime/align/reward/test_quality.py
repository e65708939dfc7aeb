"""Accuracy, calibration and spread from scores."""

import math

import numpy as np
import pytest

from trainwright.runtime.align.reward.quality import by_domain, quality


def scores(*lists: tuple[float, ...]) -> list[np.ndarray[tuple[int], np.dtype[np.float32]]]:
    return [np.array(values, dtype=np.float32) for values in lists]


def test_all_ordered_pairs_count_and_a_draw_is_wrong() -> None:
    found = quality(scores((2.0, 1.0), (1.0, 1.0), (3.0, 0.0, 1.0)))
    assert (found.lists, found.pairs) == (3, 5)
    assert found.accuracy == pytest.approx(3 / 5)  # of the last list: 3 > 0 and 3 > 1, not 0 > 1
    assert found.margin_mean == pytest.approx((1 + 0 + 3 + 2 - 1) / 5)
    values = [2, 1, 1, 1, 3, 0, 1]
    assert [found.mean, found.std] == pytest.approx([np.mean(values), np.std(values)])


def test_a_calibrated_model_is_right_as_often_as_it_says() -> None:
    lead = math.log(3.0)  # confidence 3/4
    found = quality(scores(*[(lead, 0.0)] * 3, (0.0, lead))).calibration
    assert [(part.low, part.high, part.pairs) for part in found.bins] == [(0.75, 0.8, 4)]
    assert found.bins[0].confidence == pytest.approx(0.75)
    assert found.error == pytest.approx(0.0, abs=1e-6)


def test_the_calibration_error_weighs_bins_by_their_pairs() -> None:
    sure = math.log(19.0)  # confidence 0.95
    found = quality(scores((0.0, sure), *[(math.log(3.0), 0.0)] * 3)).calibration
    assert [(part.pairs, part.accuracy) for part in found.bins] == [(3, 1.0), (1, 0.0)]
    assert found.error == pytest.approx((3 * 0.25 + 1 * 0.95) / 4, abs=1e-6)


def test_domains_are_told_apart() -> None:
    found = by_domain(scores((1.0, 0.0), (0.0, 1.0), (2.0, 0.0)), ["math", "poetry", "math"])
    assert {name: (part.lists, part.accuracy) for name, part in found.items()} == {"math": (2, 1.0), "poetry": (1, 0.0)}
