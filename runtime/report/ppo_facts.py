"""What is shown of rounds of PPO: where an iteration's time goes, and some of the answers."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain, zip_longest
from statistics import median

from trainwright.runtime.report.alignment_facts import ModelAnswer, Probe, Rollout, SideBySide
from trainwright.runtime.report.facts import Curve
from trainwright.spec.artefact import WARM_UP_STEPS
from trainwright.spec.plan import Estimate

PHASES = ("generate", "score", "critic", "actor", "save")
QUERIES = 6  # shown side by side
_EACH = 2  # of an iteration's answers, so many of the best and of the worst
_LETTERS = 1500  # of a text


def planned_ms(estimate: Estimate | None) -> dict[str, float]:
    """An iteration's time by phase in the placement that was chosen; empty where the plan has none."""
    chosen = [each for each in (estimate.iterations if estimate else ()) if each.chosen]
    moments = [moment for each in chosen for moment in each.moments]
    return {moment.name: moment.time_s * 1000 for moment in moments if moment.time_s is not None}


def measured_ms(curve: Curve) -> dict[str, float]:
    """An iteration's typical time by phase: medians over iterations in which the actor learns, the first ones left out.

    Before that the critic learns alone. What saving takes is spread over all iterations.
    """
    learning = [row for row in curve.rows if "ppo_time/actor_ms" in row]
    typical = Curve(stage=curve.stage, rows=tuple(learning[WARM_UP_STEPS:] or learning or curve.rows))
    found = {}
    for phase in PHASES[:-1]:
        values = [value for _, value in typical.values(f"ppo_time/{phase}_ms")]
        if values:
            found[phase] = median(values)
    saves = [value for _, value in curve.values("ppo_time/save_ms")]
    return found | ({"save": sum(saves) / len(curve.rows)} if saves else {})


def best_and_worst(rows: Sequence[Rollout]) -> tuple[Rollout, ...]:
    """By score, the best first; all of them if they are few."""
    ordered = sorted(rows, key=lambda row: -row.score)
    chosen = ordered if len(ordered) <= 2 * _EACH else ordered[:_EACH] + ordered[-_EACH:]
    return tuple(
        Rollout(
            iteration=row.iteration,
            query=row.query,
            domain=row.domain,
            prompt=_cut(row.prompt),
            answer=_cut(row.answer),
            score=row.score,
            kl=row.kl,
            length=row.length,
            truncated=row.truncated,
        )
        for row in chosen
    )


def side_by_side(rounds: Mapping[str, Sequence[Probe]]) -> tuple[SideBySide, ...]:
    """Some queries with the answers of every round's models, from the rounds' probes by the name of their stage.

    Those that most models have answered, held-out ones first, and domains in turn.
    """
    answered: defaultdict[str, list[tuple[str, Probe]]] = defaultdict(list)
    for stage, probes in rounds.items():
        for probe in probes:
            answered[probe.query].append((stage, probe))
    by_domain: defaultdict[str, list[str]] = defaultdict(list)
    for query in sorted(answered, key=lambda query: (-len(answered[query]), answered[query][0][1].split != "held_out")):
        by_domain[answered[query][0][1].domain].append(query)
    in_turn = [query for query in chain.from_iterable(zip_longest(*by_domain.values())) if query is not None]
    return tuple(_side_by_side(answered[query]) for query in in_turn[:QUERIES])


def _side_by_side(answers: Sequence[tuple[str, Probe]]) -> SideBySide:
    first = answers[0][1]
    return SideBySide(
        query=first.query,
        domain=first.domain,
        split=first.split,
        prompt=_cut(first.prompt),
        answers=tuple(
            ModelAnswer(
                stage=stage,
                model=probe.model,
                iteration=probe.iteration,
                text=_cut(probe.answer),
                score=probe.score,
                kl=probe.kl,
                length=probe.length,
                truncated=probe.truncated,
            )
            for stage, probe in answers
        ),
    )


def _cut(text: str) -> str:
    """The text, or as much of it as a page shows."""
    return text if len(text) <= _LETTERS else f"{text[:_LETTERS]} … ({len(text) - _LETTERS:,} letters more)"
