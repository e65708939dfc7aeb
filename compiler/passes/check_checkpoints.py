"""Checkpoints are neither so frequent nor so rare that another interval would keep much more of the time."""

from collections.abc import Iterator

from trainwright.compiler.draft import Check, Draft
from trainwright.spec.diagnostics import Diagnostic
from trainwright.spec.plan import Goodput
from trainwright.spec.units import format_seconds

_WORTH_TELLING = 0.05  # of the time; ours


def check_checkpoints(draft: Draft) -> Iterator[Diagnostic]:
    """One report, of the phase that would gain most: all phases share `[run] checkpoint`."""
    known = [(each.stage, each.step, each.goodput) for each in draft.estimates if each.step and each.goodput]
    for stage, step, goodput in sorted(known, key=lambda each: _gain(each[2]), reverse=True)[:1]:
        if _gain(goodput) < _WORTH_TELLING:
            return
        message = (
            f"phase `{stage}` keeps {goodput.share:.0%} of its time: {format_seconds(goodput.save_s)} to save after "
            f"every {format_seconds(goodput.checkpoint_interval_s)} of training, a failure every "
            f"{format_seconds(goodput.between_failures_s)}"
        )
        in_steps = "step" in draft.spec.run.checkpoint.every
        steps, minutes = round(goodput.best_interval_s / step.time_s), round(goodput.best_interval_s / 60)
        best = f"{max(steps, 1)} steps" if in_steps else f"{max(minutes, 1)}min"
        cure = f'`every = "{best}"` would keep {goodput.best_share:.0%}'
        yield Diagnostic("TW335", message, draft.value_at("run", "checkpoint", "every"), cure, severity="warning")


def _gain(goodput: Goodput) -> float:
    return goodput.best_share - goodput.share


CHECK_CHECKPOINTS = Check(check_checkpoints, needs=("spec.run", "estimates"), holds="checkpoints are worth their time")
