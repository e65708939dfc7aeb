"""The estimates stay within `[budget]`: an error if the estimate itself is over, a warning if only its high end is."""

from collections.abc import Iterator

from trainwright.compiler.draft import Check, Draft
from trainwright.compiler.search.ask import question_of
from trainwright.compiler.search.enough import Enough, what_is_enough
from trainwright.spec.diagnostics import Diagnostic, Severity
from trainwright.spec.units import format_seconds

_LEFT_OPEN = 'see `trainwright plan --search` with `topology = "auto"`'


def check_budget(draft: Draft) -> Iterator[Diagnostic]:
    budget = draft.spec.budget
    if budget.max_cost is not None:
        yield from _cost(draft, budget.max_cost)
    if budget.deadline is not None:
        yield from _deadline(draft, budget.deadline)


def _cost(draft: Draft, most: float) -> Iterator[Diagnostic]:
    where = draft.value_at("budget", "max_cost")
    total, low, high = (_sum(draft, key) for key in ("cost", "cost_low", "cost_high"))
    if total is None or low is None or high is None:
        unknown = "price_per_gpu_hour" if draft.hardware.peak_flops is not None else "gpu"
        message = "`max_cost` cannot be held against a cost that nothing is known of"
        yield Diagnostic("TW334", message, where, f"state `{unknown}` in `[cluster]`", severity="warning")
    elif high > most:
        message = f"training is estimated at {total:,.0f} ({low:,.0f} to {high:,.0f})"
        message += f", {total - most:,.0f} over `max_cost`" if total > most else ": `max_cost` may not be enough"
        yield Diagnostic("TW332", message, where, _cheaper(draft, most / total), severity=_severity(total > most))


def _cheaper(draft: Draft, share: float) -> str:
    if share >= 1:
        return "nothing has to change if the estimate holds"
    enough = _what_is_enough(draft, share)
    if enough.layout:
        return f"other layouts of this cluster are cheaper by that much: {_LEFT_OPEN}"
    return f"train on {share:.0%} of the tokens, or see `trainwright plan --search --objective cost`"


def _deadline(draft: Draft, latest_s: float) -> Iterator[Diagnostic]:
    where = draft.value_at("budget", "deadline")
    total, low, high = (_sum(draft, key) for key in ("duration_s", "duration_low_s", "duration_high_s"))
    if total is None or low is None or high is None:
        message = "`deadline` cannot be held against a time that nothing is known of"
        yield Diagnostic("TW334", message, where, "name a `gpu` in `[cluster]`", severity="warning")
    elif high > latest_s:
        message = f"training is estimated at {format_seconds(total)} ({format_seconds(low)} to {format_seconds(high)})"
        over = f", {format_seconds(total - latest_s)} past the deadline"
        message += over if total > latest_s else ": it may end after the deadline"
        late = total > latest_s
        yield Diagnostic("TW333", message, where, _sooner(draft, latest_s / total), severity=_severity(late))


def _sooner(draft: Draft, share: float) -> str:
    if share >= 1:
        return "nothing has to change if the estimate holds"
    enough = _what_is_enough(draft, share)
    if enough.layout:
        return f"other layouts of this cluster are that fast: {_LEFT_OPEN}"
    if enough.nodes is not None:
        return f"`nodes = {enough.nodes}` would do; `trainwright plan --search --objective gpus` looks for fewer"
    return f"train on {share:.0%} of the tokens, or see `trainwright plan --search --objective gpus`"


def _what_is_enough(draft: Draft, share: float) -> Enough:
    questions = {index: question_of(draft, index) for index in range(len(draft.open_topologies))}
    phases = {phase.name for phase in draft.spec.phases}  # the layouts of alignment are not searched for
    steps_s = [each.step.time_s for each in draft.estimates if each.step is not None and each.stage in phases]
    return what_is_enough(questions, draft.hardware.figures, steps_s, share)


def _sum(draft: Draft, key: str) -> float | None:
    values = [getattr(estimate, key) for estimate in draft.estimates if not estimate.is_open]
    return None if None in values else sum(values)


def _severity(over: bool) -> Severity:
    return "error" if over else "warning"


CHECK_BUDGET = Check(
    check_budget,
    needs=(
        "spec.budget",
        "spec.cluster",
        "spec.kernels",
        "spec.phases",
        "spec.run",
        "model",
        "courses",
        "open_topologies",
        "estimates",
        "hardware",
    ),
    holds="within budget",
)
