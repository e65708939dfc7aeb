"""The Triton attention in Triton's interpreter: as right as plain torch in the same dtype, and it never leaks."""

import json
from typing import Any

import pytest
from tests.kernels.portable.processes import start

from trainwright.kernels.correctness import complaints

PARTS = 2

pytest.importorskip("triton", reason="the portable kernels need triton, which exists for Linux alone")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def measured() -> list[dict[str, Any]]:
    processes = [start("matrix", str(part), str(PARTS)) for part in range(PARTS)]
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * PARTS
    return [json.loads(line) for output in outputs for line in output.splitlines()]


def test_errors_are_as_small_as_plain_torch_makes_them(measured: list[dict[str, Any]]) -> None:
    assert len(measured) >= 50
    for row in measured:
        assert complaints(row["errors"], row["dtype"]) == [], row


def test_what_must_never_happen_does_not() -> None:
    process = start("safety")
    output, _ = process.communicate()
    assert process.returncode == 0
    held = json.loads(output.splitlines()[-1])
    assert len(held) == 9
    assert all(held.values()), held
