"""A plan as JSON for programs."""

from collections.abc import Sequence
from typing import Any

import msgspec

from trainwright.compiler.review import Verdict
from trainwright.spec.plan import Plan


def plan_to_json(plan: Plan, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """The plan's own fields, and `verdicts`: what executing it here would do."""
    document: dict[str, Any] = msgspec.to_builtins(plan, order="deterministic")
    document["verdicts"] = [
        {"stage": verdict.stage, "action": verdict.action, "reason": verdict.reason, "step": verdict.step}
        for verdict in verdicts
    ]
    return document


def stage_to_json(plan: Plan, verdict: Verdict) -> dict[str, Any]:
    """One stage's own fields, its estimate if it has one, and its verdict."""
    document = plan_to_json(plan, [verdict])
    found = [each for each in document["estimates"] if each["stage"] == verdict.stage]
    (stage,) = (each for each in document["stages"] if each["name"] == verdict.stage)
    return {"stage": stage, "estimate": found[0] if found else None, "verdict": document["verdicts"][0]}
