"""Every layout trains the same reward model and gives the same scores."""

from collections.abc import Callable
from typing import Any

import pytest

World = Callable[..., Any]

PAIRS: dict[str, dict[str, Any]] = {
    "DP 2, uneven pairs on its ranks": {"data": 2},
    "TP 2": {"tensor": 2},
    "TP 2 + SP": {"tensor": 2, "sequence_parallel": True},
    "PP 2": {"pipeline": 2},
    "PP 2 x VPP 2": {"pipeline": 2, "virtual_pipeline": 2, "schedule": "interleaved"},
    "CP 2": {"context": 2},
}
FOURS: dict[str, dict[str, Any]] = {
    "CP 2 x TP 2 + SP": {"context": 2, "tensor": 2, "sequence_parallel": True, "context_exchange": "ring"},
    "CP 2 x DP 2, whole optimizer": {"context": 2, "data": 2, "zero": 0},
    "TP 2 x PP 2 + SP": {"tensor": 2, "pipeline": 2, "sequence_parallel": True},
}


@pytest.mark.slow
def test_every_layout_gives_the_losses_and_scores_of_one_process(world: World) -> None:
    job = {"model": {"tie_embeddings": True}}
    (alone,) = world(1, **job, layouts=[{}])
    runs = dict(zip(PAIRS, world(2, **job, layouts=list(PAIRS.values())), strict=True))
    runs |= dict(zip(FOURS, world(4, **job, layouts=list(FOURS.values())), strict=True))
    pairs = [step[4] for step in alone["steps"]]
    assert len(set(pairs)) > 2, "steps have unlike numbers of pairs"
    for name, run in runs.items():
        for (loss, norm, *figures), (loss_1, norm_1, *figures_1) in zip(run["steps"], alone["steps"], strict=True):
            assert loss == pytest.approx(loss_1, rel=1e-5), name
            assert norm == pytest.approx(norm_1, rel=1e-4), name  # amplifies what rounding does to the weights
            assert figures == pytest.approx(figures_1, rel=1e-4, abs=1e-3), name  # counts each pair and score once
        assert run["values"] == pytest.approx(alone["values"], abs=1e-4), name
