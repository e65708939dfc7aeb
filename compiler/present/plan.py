"""A plan as a summary that is read in ten seconds; `stage.py` shows one stage in depth."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from trainwright.compiler.capacity import verdict
from trainwright.compiler.draw import describe
from trainwright.compiler.figures import rounded, size
from trainwright.compiler.present.facts import (
    axes,
    cluster,
    estimate_of,
    fullest,
    fullest_of,
    phases_of,
    totals,
    trained_of,
)
from trainwright.compiler.present.iteration import print_iterations
from trainwright.compiler.present.notes import print_assumptions, print_notices
from trainwright.compiler.present.tables import UNKNOWN, interval, number, pairs, percent, seconds, span, table
from trainwright.compiler.review import Verdict
from trainwright.spec.plan import Plan

ACTION_STYLES = {"run": "bold cyan", "resume": "bold yellow", "reuse": "green"}


def present_plan(plan: Plan, verdicts: Sequence[Verdict], console: Console, *, verbose: bool = False) -> None:
    """What is trained on what, does it fit, how long and how dear; the phases; what each stage will do and why."""
    console.print(_headline(plan))
    console.print(pairs(answers(plan)))
    console.print(_phases(plan))
    print_iterations(plan, console)
    console.print(_stages(plan, verdicts))
    console.print()
    print_notices(plan, console, verbose=verbose)
    print_assumptions(plan, console, verbose=verbose)
    console.print(Text(closing(verdicts)))


def closing(verdicts: Sequence[Verdict]) -> str:
    """How many stages will run, resume and be reused."""
    counts = {action: sum(verdict.action == action for verdict in verdicts) for action in ACTION_STYLES}
    if counts["run"] + counts["resume"] == 0:
        return "Nothing to do: every stage has its result."
    return "Plan: " + ", ".join(f"{count} to {action}" for action, count in counts.items() if count) + "."


def _headline(plan: Plan) -> Text:
    phases = phases_of(plan)
    model = phases[0].model
    tokens = rounded(sum(phase.tokens for phase in phases))
    several = "" if len(phases) == 1 else "s"
    return Text.assemble(
        (plan.name, "bold"),
        f": {model.parameters:,} parameters, {tokens} tokens in {len(phases)} phase{several}, {phases[0].precision}, "
        f"on {cluster(plan.hardware)}",
    )


def answers(plan: Plan) -> list[tuple[str, str]]:
    """Does it fit, how long, how dear, how well: a question and its answer in a sentence each."""
    whole = totals(plan)
    if whole.duration_s is None:
        unknown = f"not known: no peak of `{plan.hardware.name}` is known; `trainwright calibrate` measures a machine"
        return [("fits", _fits(plan)), ("takes", unknown)]
    time = whole.duration_s
    hours = f"{number(whole.gpu_hours)} GPU-hours"
    energy = f", {number(whole.energy_kwh)} kWh" if whole.energy_kwh is not None else ""
    costs = f"{hours}{energy}; no price is stated"
    if whole.cost is not None:
        money = span(number(whole.cost.value), interval(number, whole.cost.low, whole.cost.high))
        costs = f"{money}; {hours}{energy}"
    speeds = [f"{percent(each.mfu)} in {each.stage}" for each in plan.estimates if each.mfu is not None]
    left = [each.stage for each in plan.estimates if each.is_open]
    unknown = f"{', '.join(left)}: how much text they read is not known; `tokens` of their sources says so"
    return [
        ("fits", _fits(plan)),
        *([("without", unknown)] if left else []),
        ("takes", span(f"{seconds(time.value)} of training", interval(seconds, time.low, time.high))),
        ("costs", costs),
        ("MFU", f"{', '.join(speeds)}\n({plan.flops_convention})"),
    ]


def _fits(plan: Plan) -> str:
    full = fullest(plan)
    where = f"in {full.estimate.stage}" if len(plan.estimates) > 1 else ""
    if len(full.estimate.memory) > 1:
        where = f"pp {full.memory.pipeline_rank} {where}".strip()
    needs = f"the fullest rank{f' ({where})' if where else ''} needs {size(full.memory.total_bytes)}"
    if full.share is None:
        return f"not known: {needs}, the device's memory is not stated; most of it is {full.memory.binds}"
    capacity = size(full.estimate.capacity_bytes or 0)
    return f"{verdict(full.share)}: {needs} of {capacity} ({full.share:.0%}); most of it is {full.memory.binds}"


def _phases(plan: Plan) -> Table:
    made = table("\nPhases", "phase", "layout", right=("memory", "card", "step", "MFU", "time", "cost"))
    for phase in trained_of(plan):
        estimate = estimate_of(plan, phase.name)
        full = fullest_of(estimate)
        made.add_row(
            escape(phase.name),
            axes(phase.layout),
            size(full.memory.total_bytes),
            percent(full.share),
            seconds(estimate.step_time_s),
            percent(estimate.mfu),
            seconds(estimate.duration_s),
            number(estimate.cost) if estimate.cost is not None else UNKNOWN,
        )
    return made


def _stages(plan: Plan, verdicts: Sequence[Verdict]) -> Table:
    made = table("\nStages", "stage", "will", "because", "does")
    said = {verdict.stage: verdict for verdict in verdicts}
    for stage in plan.stages:
        verdict = said[stage.name]
        action = Text(verdict.action, style=ACTION_STYLES[verdict.action])
        made.add_row(escape(stage.name), action, escape(verdict.reason), escape(describe(stage)))
    return made
