"""An iteration of PPO: its moments, for both placements of the models."""

from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from trainwright.compiler.figures import size
from trainwright.compiler.present.tables import UNKNOWN, number, percent, seconds, table
from trainwright.spec.plan import Estimate, IterationEstimate, Plan


@dataclass(frozen=True)
class IterationRow:
    """A moment, or `all` of an iteration, in words."""

    models: str
    moment: str
    ranks: str
    time: str
    idle: str
    memory: str
    card: str


@dataclass(frozen=True)
class IterationView:
    """The table of one stage of PPO, and what a round of each placement takes."""

    stage: str
    rows: tuple[IterationRow, ...]
    whole: str


def iteration_views(plan: Plan) -> list[IterationView]:
    """One for all rounds that are alike; none if the plan has no PPO."""
    told: list[tuple[IterationEstimate, ...]] = []
    views = []
    for estimate in plan.estimates:
        if estimate.iterations and estimate.iterations not in told:
            told.append(estimate.iterations)
            views.append(view(estimate))
    return views


def view(estimate: Estimate) -> IterationView:
    """An estimate of a stage of PPO in words."""
    rows = tuple(row for each in estimate.iterations for row in _rows(estimate, each))
    return IterationView(estimate.stage, rows, "; ".join(_whole(each) for each in estimate.iterations))


def print_iterations(plan: Plan, console: Console) -> None:
    """All of `iteration_views`."""
    for each in iteration_views(plan):
        print_iteration(each, console)


def print_iteration(shown: IterationView, console: Console) -> None:
    right = ("ranks", "time", "idle", "memory", "card")
    made = table(f"\nAn iteration of {shown.stage}", "models", "moment", right=right)
    for row in shown.rows:
        made.add_row(row.models, row.moment, row.ranks, row.time, row.idle, row.memory, row.card)
    console.print(made)
    console.print(Text(shown.whole))


def _rows(estimate: Estimate, each: IterationEstimate) -> Iterator[IterationRow]:
    name = f"{each.placement} (chosen)" if each.chosen else each.placement
    for moment in each.moments:
        waves = f" in {each.waves:,} waves" if moment.name == "generate" and each.waves > 1 else ""
        used = moment.memory.total_bytes
        yield _row(estimate, name, moment.name + waves, moment.ranks, moment.time_s, moment.idle, used)
        name = ""
    yield _row(estimate, "", "all", each.ranks, each.time_s, each.idle, each.fullest.total_bytes)


def _row(
    estimate: Estimate, models: str, moment: str, ranks: int, time_s: float | None, idle: float | None, used_bytes: int
) -> IterationRow:
    share = used_bytes / estimate.capacity_bytes if estimate.capacity_bytes else None
    return IterationRow(models, moment, f"{ranks:,}", seconds(time_s), percent(idle), size(used_bytes), percent(share))


def _whole(each: IterationEstimate) -> str:
    cost = f", {number(each.cost)}" if each.cost is not None else ""
    taken = seconds(each.duration_s) if each.duration_s is not None else UNKNOWN
    return f"{each.placement}: {taken} a round{cost}"
