"""What `events.jsonl` tells: how often a run was tried, how each stage of the newest attempt ended, what went wrong."""

import fcntl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from trainwright.runtime.report.facts import State, Trouble

_SHOWN_APART = frozenset({"ts", "rank", "stage", "event", "level", "error", "message", "traceback"})
Event = dict[str, Any]


@dataclass(frozen=True)
class Attempts:
    """All attempts at a run. `newest`: the events since the last `run_started`; `locked`: somebody runs it now."""

    events: Sequence[Event]
    newest: Sequence[Event]
    count: int
    locked: bool

    @property
    def end(self) -> Event | None:
        """The event that closed the newest attempt; None while it runs, or if it was killed."""
        return next((event for event in self.newest if event.get("event") == "run_ended"), None)

    @property
    def running(self) -> bool:
        return self.locked and bool(self.newest) and self.end is None

    @property
    def wall_s(self) -> float | None:
        """Time inside attempts, each from its start to its last event; None if there was none."""
        if not self.count:
            return None
        total, started, last = 0.0, None, None
        for event in self.events:
            moment = _moment(event)
            if event.get("event") == "run_started":
                total += _seconds(started, last)
                started = moment
            last = moment or last
        return total + _seconds(started, last)

    def of(self, stage: str) -> list[str]:
        """Names of the newest attempt's events of that stage, in order."""
        return [str(event.get("event")) for event in self.newest if event.get("stage") == stage]

    def troubles(self) -> tuple[Trouble, ...]:
        """Everything of level error that the newest attempt says: workers first, who know the cause, each in its turn.

        What several ranks say in the same words is told once, and what the executor says after a worker not again.
        """
        errors = [event for event in self.newest if event.get("level") == "error"]
        told: dict[tuple[object, str], list[Event]] = {}
        for event in sorted(errors, key=lambda event: event.get("rank") is None):
            stage, sentence = event.get("stage"), _sentence(event)
            repeats = (key for key in told if key[0] == stage and sentence.startswith(key[1]))
            told.setdefault(next(repeats, (stage, sentence)), []).append(event)
        return tuple(_trouble(events) for events in told.values())


def read_attempts(events: list[Event], folder: Path) -> Attempts:
    """The events, cut into attempts. `folder` is the run's, whose lock tells whether somebody runs it now."""
    starts = [index for index, event in enumerate(events) if event.get("event") == "run_started"]
    newest = events[starts[-1] :] if starts else events
    return Attempts(events=events, newest=newest, count=len(starts), locked=_locked(folder / "lock"))


def stage_state(attempts: Attempts, stage: str, *, done: bool, begun: bool) -> tuple[State, str]:
    """The stage's state and why. `done`: its result is there; `begun`: its folder says it was started."""
    told = attempts.of(stage)
    if done and "stage_failed" in told:
        return "failed", "done, and not as good as its gate demands"
    if done:
        return ("reused", "nothing that determines it changed") if "stage_reused" in told else ("done", "")
    if "stage_failed" in told or "worker_failed" in told:
        return "failed", ""
    if "stage_interrupted" in told:
        saved = any(e.get("saved") for e in attempts.newest if e.get("event") == "stage_interrupted")
        return "interrupted", "asked to stop" if saved else "asked to stop, it starts again"
    if begun and attempts.running:
        return "running", ""
    if begun:
        return "interrupted", "killed: neither an end nor an error was written"
    return "waiting", "not reached"


def run_state(stages: Sequence[State], attempts: Attempts) -> State:
    """What holds for the run as a whole."""
    if attempts.running:
        return "running"
    if "failed" in stages:
        return "failed"
    if all(state in ("done", "reused") for state in stages):
        return "done"
    return "interrupted" if attempts.count else "waiting"


def _sentence(event: Event) -> str:
    return str(event.get("error") or event.get("message") or event.get("event"))


def _trouble(events: list[Event]) -> Trouble:
    """What the first of these events says, and all ranks that say it."""
    event = events[0]
    stage, trace = event.get("stage"), event.get("traceback")
    return Trouble(
        what=_sentence(event),
        stage=str(stage) if stage is not None else None,
        ranks=tuple(rank for event in events if isinstance(rank := event.get("rank"), int)),
        when=str(event["ts"]) if "ts" in event else None,
        details={key: str(value) for key, value in event.items() if key not in _SHOWN_APART},
        traceback=str(trace) if trace else None,
    )


def _moment(event: Event) -> datetime | None:
    try:
        return datetime.fromisoformat(str(event.get("ts")))
    except ValueError:
        return None


def _seconds(first: datetime | None, last: datetime | None) -> float:
    return (last - first).total_seconds() if first is not None and last is not None else 0.0


def _locked(path: Path) -> bool:
    """True while a process holds the run's lock."""
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
