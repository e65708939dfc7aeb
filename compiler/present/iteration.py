"""An iteration of PPO for a terminal: its moments, for both placements of the models."""

from rich.console import Console
from rich.text import Text

from trainwright.compiler.figures import size
from trainwright.compiler.present.tables import UNKNOWN, number, percent, seconds, table
from trainwright.spec.plan import Estimate, IterationEstimate, Plan


def print_iterations(plan: Plan, console: Console) -> None:
    """One table for all rounds that are alike; nothing if the plan has no PPO."""
    told: list[tuple[IterationEstimate, ...]] = []
    for estimate in plan.estimates:
        if estimate.iterations and estimate.iterations not in told:
            told.append(estimate.iterations)
            _print(plan, estimate, console)


def _print(plan: Plan, estimate: Estimate, console: Console) -> None:
    made = table(
        f"\nAn iteration of {estimate.stage}", "models", "moment", right=("ranks", "time", "idle", "memory", "card")
    )
    for each in estimate.iterations:
        name = f"{each.placement} (chosen)" if each.chosen else each.placement
        for moment in each.moments:
            waves = f" in {each.waves:,} waves" if moment.name == "generate" and each.waves > 1 else ""
            made.add_row(
                name,
                moment.name + waves,
                f"{moment.ranks:,}",
                seconds(moment.time_s),
                percent(moment.idle),
                size(moment.memory.total_bytes),
                percent(_share(estimate, moment.memory.total_bytes)),
            )
            name = ""
        made.add_row(
            "",
            Text("all", "bold"),
            f"{each.ranks:,}",
            seconds(each.time_s),
            percent(each.idle),
            size(each.fullest.total_bytes),
            percent(_share(estimate, each.fullest.total_bytes)),
        )
    console.print(made)
    console.print(Text("; ".join(_whole(each) for each in estimate.iterations)))


def _share(estimate: Estimate, memory_bytes: int) -> float | None:
    return memory_bytes / estimate.capacity_bytes if estimate.capacity_bytes else None


def _whole(each: IterationEstimate) -> str:
    cost = f", {number(each.cost)}" if each.cost is not None else ""
    taken = seconds(each.duration_s) if each.duration_s is not None else UNKNOWN
    return f"{each.placement}: {taken} a round{cost}"
