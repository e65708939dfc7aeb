"""The fused Triton operators in Triton's interpreter: as right as plain torch in the same dtype, row by row."""

import json
from typing import Any

import pytest
from tests.kernels.portable.processes import start

RELATIVE = {"fp32": 5e-7, "fp16": 1e-3, "bf16": 6e-3}

pytest.importorskip("triton", reason="the portable kernels need triton, which exists for Linux alone")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def printed() -> tuple[list[dict[str, Any]], dict[str, bool]]:
    """The matrix of errors, and what was tried that must never happen."""
    processes = [start("fused_matrix"), start("fused_safety")]
    matrix, safety = (process.communicate()[0] for process in processes)
    assert [process.returncode for process in processes] == [0, 0]
    return [json.loads(line) for line in matrix.splitlines()], json.loads(safety.splitlines()[-1])


def test_errors_are_at_most_twice_those_of_plain_torch(printed: tuple[list[dict[str, Any]], object]) -> None:
    measured, _ = printed
    assert len(measured) >= 100
    for row in measured:
        for error in row["errors"]:
            assert error["error"] <= 2 * error["of_torch"] + 3e-7 * error["largest"], (row["case"], row["dtype"], error)


def test_errors_are_small_in_norm(printed: tuple[list[dict[str, Any]], object]) -> None:
    """Some gradients are differences of nearly equal numbers, as of a row of one: there twice of torch's is enough."""
    measured, _ = printed
    for row in measured:
        for error in row["errors"]:
            allowed = max(RELATIVE[row["dtype"]], 2 * error["relative_of_torch"])
            assert error["relative"] <= allowed, (row["case"], row["dtype"], error)


def test_what_must_never_happen_does_not(printed: tuple[object, dict[str, bool]]) -> None:
    _, held = printed
    assert len(held) == 17
    assert all(held.values()), held
