"""Why a reward model is given conditions: tastes that contradict each other."""

import importlib
from typing import Any

import pytest
from tests.conftest import ROOT


@pytest.mark.slow
def test_conditions_let_one_model_hold_two_tastes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    bench: Any = importlib.import_module("conditional_reward")
    found = bench.experiment(seeds=1, steps=120)
    (conditional,), (plain,) = found["conditional"], found["plain"]
    assert min(conditional.values()) > 0.9, found
    assert sum(plain.values()) == pytest.approx(1.0, abs=0.02), "what is right in one domain is wrong in the other"
    for domain in bench.DOMAINS:
        assert conditional[domain] > plain[domain] + 0.1, found
