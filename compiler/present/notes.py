"""What a plan takes for granted and what it cannot do yet: assumptions and notices, few lines or all."""

import re

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from trainwright.compiler.present.tables import table
from trainwright.spec.plan import Assumption, Notice, Plan

OURS = "ours"


def print_notices(plan: Plan, console: Console, *, verbose: bool) -> None:
    """What blocks a run comes first, each in full; notes alike are one line unless `verbose`."""
    for notice in (each for each in plan.notices if each.blocks):
        console.print(Text.assemble(("blocks run: ", "bold red"), f"{notice.key}: {notice.message}"))
    for group in alike([each for each in plan.notices if not each.blocks]):
        shown = group if verbose else group[:1]
        for notice in shown:
            more = f" and {len(group) - 1} more" if len(group) > len(shown) else ""
            console.print(Text.assemble(("note: ", "bold"), f"{notice.key}{more}: {notice.message}"))


def print_assumptions(plan: Plan, console: Console, *, verbose: bool) -> None:
    """Every value that nobody wrote if `verbose`, else how many there are."""
    if not plan.assumptions:
        return
    if not verbose:
        several = "value that nobody wrote is" if len(plan.assumptions) == 1 else "values that nobody wrote are"
        console.print(Text(f"{len(plan.assumptions)} {several} assumed: -v lists them."))
        return
    made = table("\nAssumed", "key", "value", "because")
    for assumption in sorted(plan.assumptions, key=lambda each: each.why == OURS):
        made.add_row(escape(assumption.key), escape(assumption.value), escape(_because(assumption)))
    console.print(made)


def alike(notices: list[Notice]) -> list[list[Notice]]:
    """Notices that say the same of different names, together."""
    groups: dict[str, list[Notice]] = {}
    for notice in notices:
        groups.setdefault(re.sub(r"`[^`]*`", "``", notice.message), []).append(notice)
    return list(groups.values())


def _because(assumption: Assumption) -> str:
    return "our default" if assumption.why == OURS else assumption.why
