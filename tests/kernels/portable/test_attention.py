"""The Triton attention in Triton's interpreter: as right as plain torch in the same dtype, and it never leaks."""

import json
from typing import Any

import pytest
from tests.kernels.portable.processes import start

PARTS = 2
# The bounds of flash-attention's own tests (twice the error of plain torch), and a norm for each dtype.
RELATIVE = {"fp32": 5e-6, "fp16": 1e-3, "bf16": 6e-3}

pytest.importorskip("triton", reason="the portable kernels need triton, which exists for Linux alone")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def measured() -> list[dict[str, Any]]:
    processes = [start("matrix", str(part), str(PARTS)) for part in range(PARTS)]
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * PARTS
    return [json.loads(line) for output in outputs for line in output.splitlines()]


def test_errors_are_at_most_twice_those_of_plain_torch(measured: list[dict[str, Any]]) -> None:
    assert len(measured) >= 50
    for row in measured:
        for name, error in row["errors"].items():
            allowed = 2 * error["of_torch"] + 1e-5 * error["largest"]
            assert error["error"] <= allowed, (row["case"], name, error)


def test_errors_are_small_in_norm(measured: list[dict[str, Any]]) -> None:
    """Scores thirty times as large cost digits: one rounding of a log-sum-exp of 100 is 4e-6, a factor of its row."""
    for row in measured:
        for name, error in row["errors"].items():
            allowed = max(RELATIVE[row["dtype"]], 6 * error["relative_of_torch"])
            assert error["relative"] <= allowed, (row["case"], name, error)


def test_what_must_never_happen_does_not() -> None:
    process = start("safety")
    output, _ = process.communicate()
    assert process.returncode == 0
    held = json.loads(output.splitlines()[-1])
    assert len(held) == 9
    assert all(held.values()), held
