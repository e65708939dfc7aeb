"""What the page shows of alignment: charts, bars and sentences made of its facts."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from trainwright.runtime.report.alignment_charts import (
    dpo_charts,
    ppo_charts,
    reward_against_kl,
    reward_charts,
    sft_loss,
)
from trainwright.runtime.report.alignment_facts import PpoFacts
from trainwright.runtime.report.charts import line_class
from trainwright.runtime.report.facts import RunFacts
from trainwright.runtime.report.figure import figure, halves
from trainwright.runtime.report.ppo_facts import PHASES
from trainwright.runtime.report.quantity import milliseconds


@dataclass(frozen=True)
class Piece:
    """A phase of an iteration in a bar; `share` is of the longest bar."""

    name: str
    css: str
    share: float
    time: str


@dataclass(frozen=True)
class Bar:
    stage: str
    kind: str  # "planned" or "measured"
    pieces: tuple[Piece, ...]
    time: str


def aligned(facts: RunFacts) -> dict[str, Any]:
    """The names that the template uses for alignment."""
    loss, path = sft_loss(facts), reward_against_kl(facts)
    return {
        "sft_loss": figure(loss, half=False) if loss else None,
        "dpo_charts": halves(dpo_charts(facts)),
        "reward_charts": halves(reward_charts(facts)),
        "reward_against_kl": figure(path, half=False) if path else None,
        "ppo_charts": halves(ppo_charts(facts)),
        "bars": bars(facts.alignment.ppo),
        "ppo_phases": [(name, _css(name)) for name in PHASES],
    }


def aligned_headline(facts: RunFacts) -> Iterator[str]:
    """What alignment came to, in a few words each."""
    alignment = facts.alignment
    for sft in alignment.sft:
        if sft.held_out_loss is not None:
            yield f"{sft.stage}: held-out loss {sft.held_out_loss:.3f}"
    for reward in alignment.reward[-1:]:
        if reward.statistics and reward.statistics.measured_on == "held_out":
            yield f"{reward.stage}: {reward.statistics.accuracy:.0%} of held-out pairs right"
    for ppo in alignment.ppo[-1:]:
        rewards = facts.curve(ppo.stage).values("ppo/reward_mean")
        divergences = facts.curve(ppo.stage).values("ppo/kl_ref")
        if rewards and divergences:
            at = f"KL {divergences[-1][1]:.2f}"
            yield f"{ppo.stage}: reward {rewards[0][1]:.2f} to {rewards[-1][1]:.2f} at {at}"
    for dpo in alignment.dpo:
        if dpo.accuracy is not None:
            yield f"{dpo.stage}: {dpo.accuracy:.0%} of held-out pairs right"


def bars(rounds: tuple[PpoFacts, ...]) -> list[Bar]:
    """An iteration's phases as planned and as measured, all on one scale."""
    told = [(each.stage, kind, times) for each in rounds for kind, times in _kinds(each) if times]
    longest = max((sum(times.values()) for _, _, times in told), default=0.0)
    return [
        Bar(
            stage=stage,
            kind=kind,
            pieces=tuple(
                Piece(name, _css(name), times[name] / longest if longest else 0.0, milliseconds(times[name]))
                for name in PHASES
                if name in times
            ),
            time=milliseconds(sum(times.values())),
        )
        for stage, kind, times in told
    ]


def _kinds(ppo: PpoFacts) -> tuple[tuple[str, dict[str, float]], ...]:
    return ("planned", ppo.planned_ms), ("measured", ppo.measured_ms)


def _css(phase: str) -> str:
    return line_class(PHASES.index(phase) + 1)
