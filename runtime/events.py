"""`events.jsonl`: what happened in a run, a JSON object a line, appended by the executor and by every worker."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

EVENTS_FILE = "events.jsonl"


def now() -> str:
    """The time in UTC, ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True)
class EventLog:
    """Appends to one run's event file; a line is one `write`, so lines of several processes do not mix."""

    path: Path
    rank: int | None = None  # None: the executor

    def write(self, event: str, *, level: str = "info", stage: str | None = None, **fields: object) -> None:
        """The event stands in the file after the call. Keys: ts, rank, stage, event, level and `fields`."""
        row = {"ts": now(), "rank": self.rank, "stage": stage, "event": event, "level": level, **fields}
        data = (json.dumps({k: v for k, v in row.items() if v is not None}, ensure_ascii=False) + "\n").encode()
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, data)
        finally:
            os.close(descriptor)

    def last(self, event: str, stage: str, *, rank: int) -> dict[str, Any] | None:
        """The newest such event of the stage and rank; None if there is none."""
        with open(self.path, encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        found = [row for row in rows if (row["event"], row.get("stage"), row.get("rank")) == (event, stage, rank)]
        return found[-1] if found else None

    @contextmanager
    def span(self, event: str, *, stage: str | None = None) -> Iterator[None]:
        """Writes the event with `dur_ms` when the block ends without an exception."""
        started = time.monotonic()
        yield
        self.write(event, stage=stage, dur_ms=round((time.monotonic() - started) * 1000, 1))
