"""Writes `report.html`: a run on one page that opens anywhere, offline, without a script being needed."""

import os
from collections.abc import Callable
from pathlib import Path

from trainwright.runtime.report import quantity
from trainwright.runtime.report.facts import RunFacts
from trainwright.runtime.report.gather import gather
from trainwright.runtime.report.page import context
from trainwright.spec.look import render as look

REPORT_FILE = "report.html"


def write_report(run_folder: Path) -> Path:
    """The run's page as it stands now; returns its path. Raises gather.NoRun if the folder holds no run."""
    path = run_folder / REPORT_FILE
    temporary = run_folder / f".{REPORT_FILE}.{os.getpid()}"
    temporary.write_text(render(gather(run_folder)), encoding="utf-8")
    temporary.replace(path)
    return path


def render(facts: RunFacts) -> str:
    """The page. Everything that comes from the run is data: it is escaped, whatever it holds."""
    filters: dict[str, Callable[..., str]] = {
        "count": quantity.count,
        "size": quantity.size,
        "duration": quantity.duration,
        "error": quantity.error,
        "instant": quantity.instant,
        "number": quantity.number,
        "rate": quantity.rate,
    }
    return look.render(Path(__file__).parent, context(facts), filters)
