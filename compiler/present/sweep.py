"""The members of a sweep side by side: does each fit, how fast is it, what does it take."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape

from trainwright.compiler.figures import size
from trainwright.compiler.present.document import plan_to_json
from trainwright.compiler.present.facts import fullest, totals
from trainwright.compiler.present.tables import UNKNOWN, number, percent, seconds, table
from trainwright.compiler.review import Verdict
from trainwright.spec.codes import CODES
from trainwright.spec.diagnostics import Diagnostic
from trainwright.spec.matrix import Member
from trainwright.spec.plan import Estimate, Plan

_YES, _NO, _WRONG = "[green]yes[/]", "[bold red]no[/]", "[bold red]wrong[/]"


@dataclass(frozen=True)
class Outcome:
    """What became of a member: its plan with a verdict for each stage, or the errors in its way."""

    member: Member
    plan: Plan | None
    verdicts: Sequence[Verdict]
    diagnostics: Sequence[Diagnostic]

    @property
    def obstacles(self) -> list[Diagnostic]:
        """Why there is no plan although the spec is right: it asks for more than the cluster is."""
        errors = [found for found in self.diagnostics if found.severity == "error"]
        return errors if all(CODES[error.code].infeasible for error in errors) else []


def present_sweep(outcomes: Sequence[Outcome], console: Console) -> None:
    """A row for each member, why those that do not fit do not, and which is the fastest and the cheapest."""
    made = table("", "", "member", "fits", right=("fullest rank", "card", "step", "MFU", "time", "cost"))
    for outcome in outcomes:
        cells = _cells(outcome.plan) if outcome.plan else [_NO if outcome.obstacles else _WRONG, *[UNKNOWN] * 6]
        made.add_row(str(outcome.member.index), outcome.member.label, *cells)
    console.print(made)
    planned = [outcome.plan for outcome in outcomes if outcome.plan]
    if any(len(plan.estimates) > 1 for plan in planned):
        console.print("Step and MFU are those of the phase that takes longest.", style="dim")
    for outcome in outcomes:
        if outcome.obstacles:
            first, *others = outcome.obstacles
            more = f", and {len(others)} more" if others else ""
            console.print(f"{outcome.member.index} does not fit: {escape(first.message)}{more}")
    for word, figure, show in _CONTESTS:
        known = [
            (value, outcome.member.label)
            for outcome in outcomes
            if outcome.plan and (value := figure(outcome.plan)) is not None
        ]
        if len(known) > 1:
            value, label = min(known)
            console.print(f"{word}: {label} ({show(value)})")


def sweep_to_json(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Each member's name and values, its plan or null, and its diagnostics."""
    return [
        {
            "member": outcome.member.name,
            "index": outcome.member.index,
            "values": dict(outcome.member.values),
            "plan": plan_to_json(outcome.plan, outcome.verdicts) if outcome.plan else None,
            "diagnostics": msgspec.to_builtins(list(outcome.diagnostics)),
        }
        for outcome in outcomes
    ]


def _cells(plan: Plan) -> list[str]:
    full, whole, longest = fullest(plan), totals(plan), _longest(plan)
    return [
        UNKNOWN if full.share is None else _YES,
        size(full.memory.total_bytes),
        percent(full.share),
        seconds(longest.step_time_s),
        percent(longest.mfu),
        seconds(_time(plan)),
        number(whole.cost.value) if whole.cost else UNKNOWN,
    ]


def _longest(plan: Plan) -> Estimate:
    return max(plan.estimates, key=lambda estimate: estimate.duration_s or 0.0)


def _time(plan: Plan) -> float | None:
    duration = totals(plan).duration_s
    return duration.value if duration else None


def _cost(plan: Plan) -> float | None:
    cost = totals(plan).cost
    return cost.value if cost else None


_CONTESTS: tuple[tuple[str, Callable[[Plan], float | None], Callable[[float | None], str]], ...] = (
    ("fastest", _time, seconds),
    ("cheapest", _cost, number),
)
