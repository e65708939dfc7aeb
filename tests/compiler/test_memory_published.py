"""The memory model against published maxima: errors that the documentation states, held as bounds."""

import importlib
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture(scope="module")
def found() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCH))
        rows = importlib.import_module("published").rows()
        return importlib.import_module("accuracy_memory").evaluate(rows)


@pytest.mark.parametrize(
    ("source", "bound_pct"),
    [
        ("SimuMax B200 v1.2 (real Megatron runs)", 0.5),
        ("Megatron-LM CI golden values", 3),
        ("Vocabulary Parallelism paper (1F1B)", 2),
        ("Vocabulary Parallelism paper (V-Half)", 2.5),
    ],
)
def test_errors_where_the_maximum_was_logged(found: Any, source: str, bound_pct: float) -> None:
    assert found["by_source"][source]["mape_pct"] <= bound_pct


def test_states_between_steps_are_those_of_the_log(found: Any) -> None:
    assert found["static_mape_pct"] < 0.1


def test_every_published_run_that_ran_out_of_memory_is_flagged(found: Any) -> None:
    ran_out = found["out_of_memory"]
    tight = ran_out["by_share_of_the_card"]["0.8"]
    assert (tight["flagged"], ran_out["rows"]) == (5, 5)
    assert tight["false_alarms"] < 0.15 * ran_out["rows_that_ran"]
