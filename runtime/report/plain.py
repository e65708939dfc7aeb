"""The report as data, for `trainwright report --json` and for programs."""

from typing import Any

import msgspec

from trainwright.runtime.report.compare import compare
from trainwright.runtime.report.facts import RunFacts


def plain(facts: RunFacts) -> dict[str, Any]:
    """The facts and planned beside measured, as JSON can hold them.

    Left out is what a file of the run's folder holds better: the plan, of the curves all but the newest row, and the
    answers of rounds of PPO.
    """
    data: dict[str, Any] = msgspec.to_builtins(facts)
    del data["plan"], data["alignment"]["side_by_side"]
    for ppo in data["alignment"]["ppo"]:
        del ppo["newest"], ppo["of"]
    data["curves"] = [{"stage": curve.stage, "last": curve.rows[-1] if curve.rows else None} for curve in facts.curves]
    data["planned_beside_measured"] = [
        {
            "stage": phase.stage.name,
            "figure": figure.name,
            "planned": figure.planned,
            "measured": figure.measured,
            "error_pct": figure.error_pct,
            "between": figure.between,
            "inside": figure.inside,
        }
        for phase in compare(facts)
        for figure in phase.figures
    ]
    return data
