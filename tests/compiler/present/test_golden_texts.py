"""Golden texts: what the terminal shows of a made-up plan, at two widths.

`python -m tests.compiler.present.test_golden_texts` rewrites them; read the difference before you commit it.
"""

import io
from pathlib import Path

import pytest
from rich.console import Console
from tests.compiler.present.plans import made_plan, made_verdicts

from trainwright.compiler.present.plan import present_plan
from trainwright.compiler.present.stage import present_stage

FOLDER = Path(__file__).resolve().parents[2] / "cases" / "texts"
CASES = {
    "plan-100": (None, 100),
    "plan-80": (None, 80),
    "plan-verbose-100": ("-v", 100),
    "pipelined-phase-100": ("4k", 100),
    "pipelined-phase-80": ("4k", 80),
    "phase-without-pipeline-100": ("32k", 100),
    "tokenizer-80": ("tokenizer", 80),
}


def shown(case: str) -> str:
    """The text without colour and without blanks at the ends of lines."""
    stage, width = CASES[case]
    plan = made_plan()
    verdicts = made_verdicts(plan)
    console = Console(width=width, file=io.StringIO(), record=True, color_system=None)
    if stage in (None, "-v"):
        present_plan(plan, verdicts, console, verbose=stage == "-v")
    else:
        present_stage(plan, next(verdict for verdict in verdicts if verdict.stage == stage), console)
    return "\n".join(line.rstrip() for line in console.export_text().splitlines()) + "\n"


@pytest.mark.parametrize("case", CASES)
def test_shows_what_it_showed(case: str) -> None:
    assert shown(case) == (FOLDER / f"{case}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("case", CASES)
def test_fits_the_width_and_cuts_nothing(case: str) -> None:
    text = shown(case)
    assert max(map(len, text.splitlines())) <= CASES[case][1]
    assert not [line for line in text.splitlines() if line.endswith("…")]


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in CASES:
        (FOLDER / f"{name}.txt").write_text(shown(name), encoding="utf-8")
