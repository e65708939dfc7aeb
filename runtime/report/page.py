"""What the page shows, section by section: facts turned into charts, tables and sentences."""

import shlex
from dataclasses import dataclass
from typing import Any

from trainwright.runtime.report.aligned import aligned, aligned_headline
from trainwright.runtime.report.compare import compare
from trainwright.runtime.report.curves import loss_chart, small_charts
from trainwright.runtime.report.facts import RunFacts, Score
from trainwright.runtime.report.figure import WIDE, figure, halves
from trainwright.runtime.report.graph import SIGNS, nodes
from trainwright.runtime.report.quantity import count
from trainwright.spec.look.graph import draw_graph
from trainwright.spec.plan import PhaseStage, TrainingStage


@dataclass(frozen=True)
class HeldOut:
    """Bits per byte: a row a source, a column a checkpoint; then the compressors. `best` is the lowest of a row."""

    columns: tuple[str, ...]
    rows: tuple["HeldOutRow", ...]


@dataclass(frozen=True)
class HeldOutRow:
    source: str
    size_bytes: int | None
    scores: tuple[Score | None, ...]
    gzip: float | None
    xz: float | None

    @property
    def best(self) -> float:
        values = [score.bits_per_byte for score in self.scores if score]
        return min([*values, *(value for value in (self.gzip, self.xz) if value is not None)])


def context(facts: RunFacts) -> dict[str, Any]:
    """All names that the template uses."""
    loss = loss_chart(facts)
    return {
        "facts": facts,
        "plan": facts.plan,
        "headline": headline(facts),
        "signs": SIGNS,
        "graph": [
            draw_graph(nodes(facts.stages), WIDE, "wide", down=False),
            draw_graph(nodes(facts.stages), 360, "narrow", down=True),
        ],
        "comparisons": compare(facts),
        "loss": figure(loss, half=False) if loss else None,
        "charts": halves(small_charts(facts)),
        "held_out": held_out(facts),
        "command": started_as(facts),
        "seeds": sorted({stage.seed for stage in facts.plan.stages if isinstance(stage, TrainingStage)}),
        **aligned(facts),
    }


def headline(facts: RunFacts) -> str:
    """The run in one line: what it trained, on how much, how far it came and what that is worth."""
    phases = [stage for stage in facts.plan.stages if isinstance(stage, PhaseStage)]
    parts = [f"{len(phases)} phase{'s' if len(phases) != 1 else ''}"]
    if phases:
        planned = sum(stage.steps * stage.tokens_per_step for stage in phases)
        seen = sum(facts.curve(stage.name).steps * stage.tokens_per_step for stage in phases)
        parts.insert(0, f"{count(phases[0].model.parameters)} parameters")
        parts.append(f"{count(seen)} tokens" if seen >= planned else f"{count(seen)} of {count(planned)} tokens")
    losses = [values[-1][1] for stage in phases if (values := facts.curve(stage.name).values("train/loss"))]
    if losses:
        parts.append(f"last training loss {losses[-1]:.3f}")
    if facts.scores:
        last = [score for score in facts.scores if score.of == facts.scores[-1].of]
        parts.append("held out " + ", ".join(f"{s.source} {s.bits_per_byte:.3f}" for s in last) + " bits per byte")
    return " · ".join([*parts, *aligned_headline(facts)])


def started_as(facts: RunFacts) -> str | None:
    """The command line that started the newest attempt, as one types it."""
    words = facts.lineage.command
    return shlex.join(["trainwright", *words[1:]]) if words else None


def held_out(facts: RunFacts) -> HeldOut | None:
    """The table of held-out scores; None if nothing was evaluated."""
    if not facts.scores:
        return None
    columns = tuple(dict.fromkeys(score.of for score in facts.scores))
    sources = dict.fromkeys(score.source for score in facts.scores)
    rows = []
    for source in sources:
        own = {score.of: score for score in facts.scores if score.source == source}
        one = next(iter(own.values()))
        rows.append(
            HeldOutRow(
                source=source,
                size_bytes=one.size_bytes,
                scores=tuple(own.get(column) for column in columns),
                gzip=one.gzip_bits_per_byte,
                xz=one.xz_bits_per_byte,
            )
        )
    return HeldOut(columns=columns, rows=tuple(rows))
