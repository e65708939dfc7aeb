"""The learning rate's curve, by its corners."""

import pytest
from msgspec import structs

from trainwright.runtime.train.learning_rate import learning_rate
from trainwright.spec.plan import LearningRatePlan

PLAN = LearningRatePlan(peak=3e-4, final=3e-5, warmup_steps=10, decay="cosine", decay_steps=110, offset=0)


def test_it_warms_up_in_a_line_and_ends_at_the_final_rate() -> None:
    assert learning_rate(PLAN, 0) == pytest.approx(3e-5)
    assert learning_rate(PLAN, 9) == pytest.approx(3e-4)
    assert learning_rate(PLAN, 10) == pytest.approx(3e-4)
    assert learning_rate(PLAN, 60) == pytest.approx((3e-4 + 3e-5) / 2)
    assert learning_rate(PLAN, 110) == pytest.approx(3e-5)
    assert learning_rate(PLAN, 500) == pytest.approx(3e-5)


def test_a_line_and_a_constant() -> None:
    assert learning_rate(structs.replace(PLAN, decay="linear"), 35) == pytest.approx(3e-5 + 0.75 * 2.7e-4)
    assert learning_rate(structs.replace(PLAN, decay="constant"), 109) == 3e-4


def test_a_later_phase_goes_on_along_the_same_curve() -> None:
    later = structs.replace(PLAN, offset=40)
    assert [learning_rate(later, step) for step in range(70)] == [learning_rate(PLAN, step) for step in range(40, 110)]


def test_a_curve_of_warm_up_alone_is_defined() -> None:
    assert learning_rate(structs.replace(PLAN, decay_steps=10), 10) == PLAN.peak
