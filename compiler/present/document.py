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
