"""A phase's time for a terminal: the step by kind of work, the phase's duration and cost, what failures take."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from trainwright.compiler.figures import flops, size
from trainwright.compiler.present.tables import bar, interval, number, pairs, percent, seconds, span, table
from trainwright.spec.plan import Estimate, Goodput, Plan, StepTime
from trainwright.spec.units import format_seconds


def print_time(plan: Plan, estimate: Estimate, console: Console) -> None:
    """The step's parts as bars, then what the whole phase takes; one line if the device's speed is not known."""
    if estimate.step is None:
        console.print(Text(f"\nNo peak of `{plan.hardware.name}` is known, so no time."))
        return
    console.print(Text("\nTime of a step by kind of work", "bold"))
    console.print(_parts(estimate.step, console.width))
    console.print()
    console.print(pairs(_figures(plan, estimate)))


def _parts(step: StepTime, width: int) -> Table:
    made = table("", "work", right=("time", "share"))
    made.add_column("", no_wrap=True)
    longest = max(step.parts.values(), default=0.0)
    for name, value in sorted(step.parts.items(), key=lambda item: -item[1]):
        drawn = bar(value / longest if longest else 0.0, min(50, width - 50), "cyan")
        made.add_row(escape(name), seconds(value), percent(value / step.time_s), drawn)
    made.add_row("all", seconds(step.time_s), "", interval(seconds, step.low_s, step.high_s))
    return made


def _figures(plan: Plan, estimate: Estimate) -> list[tuple[str, str]]:
    recomputed = estimate.hardware_flops_per_token / estimate.model_flops_per_token - 1
    again = f", and {recomputed:.0%} more for recomputation" if recomputed else ""
    time = interval(seconds, estimate.duration_low_s, estimate.duration_high_s)
    energy = "" if estimate.energy_kwh is None else f", {number(estimate.energy_kwh)} kWh"
    rows = [
        ("tokens/s", number(estimate.tokens_per_s)),
        ("FLOPs", f"{flops(estimate.model_flops_per_token)} a token{again}"),
        ("MFU", f"{percent(estimate.mfu)} ({plan.flops_convention})"),
        ("takes", span(seconds(estimate.duration_s), time)),
        ("GPU-hours", f"{number(estimate.gpu_hours)}{energy}"),
    ]
    if estimate.cost is not None:
        rows.append(("costs", span(number(estimate.cost), interval(number, estimate.cost_low, estimate.cost_high))))
    if estimate.goodput is not None:
        rows.append(("goodput", goodput(estimate.goodput)))
    return rows


def goodput(figures: Goodput) -> str:
    """What failures and checkpoints leave of the time, in two sentences."""
    failures = f"{number(figures.failures)} failures, one every {seconds(figures.between_failures_s)}"
    checkpoint = f"a checkpoint of {size(figures.checkpoint_bytes)} stops it for {seconds(figures.save_s)}"
    return (
        f"{figures.share:.1%} of the time trains steps that are kept: {failures}; {checkpoint} "
        f"every {format_seconds(figures.checkpoint_interval_s)}. "
        f"Best would be every {format_seconds(figures.best_interval_s)}: {figures.best_share:.1%}."
    )
