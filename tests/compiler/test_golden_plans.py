"""Golden plans: every folder of tests/cases/plans holds a spec and the plan it gives, so a change of either is seen.

`python -m tests.compiler.test_golden_plans` rewrites every plan.json; read the difference before you commit it.
"""

import contextlib
from pathlib import Path

import pytest

from trainwright.compiler.emit import emit
from trainwright.compiler.pipeline import compile_spec
from trainwright.spec.load import load

FOLDER = Path(__file__).resolve().parents[1] / "cases" / "plans"
CASES = sorted(folder.name for folder in FOLDER.iterdir())


def planned(case: str) -> bytes:
    """The plan's bytes, without mistakes."""
    with contextlib.chdir(FOLDER / case):
        compiled = compile_spec(load(Path("spec.toml")))
    assert compiled.plan is not None, compiled.diagnostics
    return emit(compiled.plan)


@pytest.mark.parametrize("case", CASES)
def test_plans_what_it_planned(case: str) -> None:
    assert planned(case).decode() == (FOLDER / case / "plan.json").read_text(encoding="utf-8")


if __name__ == "__main__":
    for name in CASES:
        (FOLDER / name / "plan.json").write_bytes(planned(name))
