"""The estimates stay within `[budget]`."""

from collections.abc import Iterator

from trainwright.compiler.draft import Check, Draft
from trainwright.spec.diagnostics import Diagnostic
from trainwright.spec.units import format_seconds


def check_budget(draft: Draft) -> Iterator[Diagnostic]:
    budget = draft.spec.budget
    costs = [estimate.cost for estimate in draft.estimates]
    if budget.max_cost is not None:
        where = draft.value_at("budget", "max_cost")
        cost = sum(cost for cost in costs if cost is not None)
        if None in costs:
            unknown = "price_per_gpu_hour" if draft.hardware.peak_flops is not None else "gpu"
            message = "`max_cost` cannot be held against a cost that nothing is known of"
            yield Diagnostic("TW334", message, where, f"state `{unknown}` in `[cluster]`", severity="warning")
        elif cost > budget.max_cost:
            message = f"training is estimated at {cost:,.0f}, which is over `max_cost` {budget.max_cost:,.0f}"
            yield Diagnostic(
                "TW332", message, where, f"train on {budget.max_cost / cost:.0%} of the tokens, or spend more"
            )
    durations = [estimate.duration_s for estimate in draft.estimates]
    if budget.deadline is not None:
        where = draft.value_at("budget", "deadline")
        duration = sum(duration for duration in durations if duration is not None)
        if None in durations:
            message = "`deadline` cannot be held against a time that nothing is known of"
            yield Diagnostic("TW334", message, where, "name a `gpu` in `[cluster]`", severity="warning")
        elif duration > budget.deadline:
            ratio = duration / budget.deadline
            message = f"training is estimated at {format_seconds(duration)}, past the deadline of "
            message += format_seconds(budget.deadline)
            yield Diagnostic("TW333", message, where, f"a cluster {ratio:,.1f} times as large would do")


CHECK_BUDGET = Check(check_budget, needs=("spec.budget", "estimates", "hardware"), holds="within budget")
