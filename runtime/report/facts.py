"""What is known about a run, as plain data: filled by `gather`, shown by `write_report`, printed by `plain`."""

from typing import Any, Literal

from msgspec import Struct

from trainwright.runtime.report.alignment_facts import AlignmentFacts
from trainwright.spec.plan import Plan

State = Literal["done", "reused", "running", "failed", "interrupted", "waiting"]


class Fact(Struct, kw_only=True, frozen=True):
    """A piece of what is known."""


class StageFacts(Fact, kw_only=True, frozen=True):
    """One stage of the plan and what became of it. `note` says why it was reused, or why it is not done."""

    name: str
    kind: str
    needs: tuple[str, ...]
    fingerprint: str
    state: State
    note: str
    started: str | None = None
    finished: str | None = None
    duration_s: float | None = None
    summary: dict[str, Any] = {}


class Curve(Fact, kw_only=True, frozen=True):
    """The metrics of a training stage, a row a step in order of steps; a step run twice counts the last time."""

    stage: str
    rows: tuple[dict[str, Any], ...]

    @property
    def steps(self) -> int:
        """As many as were logged last."""
        return int(self.rows[-1]["step"]) if self.rows else 0

    def values(self, key: str) -> list[tuple[int, float]]:
        """(step, value) of every step that has a finite number under `key`."""
        return [(row["step"], float(row[key])) for row in self.rows if is_number(row.get(key))]


class Trouble(Fact, kw_only=True, frozen=True):
    """Something that went wrong: a sentence, the ranks that say so (none: the executor), what else was said with it."""

    what: str
    stage: str | None = None
    ranks: tuple[int, ...] = ()
    when: str | None = None
    details: dict[str, str] = {}
    traceback: str | None = None


class LogTail(Fact, kw_only=True, frozen=True):
    """The last lines of a log; `path` is relative to the run's folder."""

    path: str
    lines: tuple[str, ...]


class Lineage(Fact, kw_only=True, frozen=True):
    """What the newest attempt was made with: the executor's `lineage.json`."""

    trainwright: str | None = None
    python: str | None = None
    platform: str | None = None
    host: str | None = None
    cores: int | None = None
    command: tuple[str, ...] = ()
    packages: dict[str, str] = {}


class SourceFacts(Fact, kw_only=True, frozen=True):
    """One source of text on its way through ingest and tokenise; None where a stage has not said yet."""

    name: str
    kind: str
    language: str
    license: str
    documents: int | None = None
    size_bytes: int | None = None
    duplicates: int | None = None
    held_out: int | None = None
    rejected: int | None = None
    train_tokens: int | None = None
    bytes_per_token: float | None = None


class Score(Fact, kw_only=True, frozen=True):
    """Held-out loss of one source at one checkpoint, beside general-purpose compressors on the same bytes."""

    stage: str
    of: str
    source: str
    bits_per_byte: float
    perplexity: float | None = None
    gzip_bits_per_byte: float | None = None
    xz_bits_per_byte: float | None = None
    size_bytes: int | None = None


class Sample(Fact, kw_only=True, frozen=True):
    stage: str
    of: str
    prompt: str
    text: str


class RunFacts(Fact, kw_only=True, frozen=True):
    """A run's folder, read. `broken` holds a sentence for every file that is there and cannot be read."""

    folder: str
    name: str
    state: State
    written: str  # when this was gathered, ISO 8601, UTC
    started: str | None  # of the newest attempt
    ended: str | None
    last_event: str | None
    attempts: int
    wall_s: float | None  # of all attempts together
    exit_code: int | None
    plan: Plan
    lineage: Lineage
    spec: str | None
    stages: tuple[StageFacts, ...]
    curves: tuple[Curve, ...]
    sources: tuple[SourceFacts, ...]
    scores: tuple[Score, ...]
    samples: tuple[Sample, ...]
    alignment: AlignmentFacts
    troubles: tuple[Trouble, ...]
    log_tails: tuple[LogTail, ...]
    broken: tuple[str, ...]

    def stage(self, name: str) -> StageFacts:
        """The stage of that name; KeyError if there is none."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(name)

    def curve(self, stage: str) -> Curve:
        """That of the training stage of that name; KeyError if there is none."""
        for curve in self.curves:
            if curve.stage == stage:
                return curve
        raise KeyError(stage)


def is_number(value: object) -> bool:
    """True for a finite number; false for booleans, text, NaN and infinities."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
