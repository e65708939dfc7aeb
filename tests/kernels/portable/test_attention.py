"""The Triton attentions in Triton's interpreter: as right as plain torch in the same dtype, and they never leak."""

import json
from typing import Any

import pytest
from tests.kernels.portable.processes import start

from trainwright.kernels.correctness import complaints

PARTS = 2

pytest.importorskip("triton", reason="the portable kernels need triton, which exists for Linux alone")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=[("portable", 50), ("hopper", 35)], ids=lambda param: param[0])
def measured(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    provider, least = request.param
    processes = [start("matrix", provider, str(part), str(PARTS)) for part in range(PARTS)]
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * PARTS
    rows = [json.loads(line) for output in outputs for line in output.splitlines()]
    assert len(rows) >= least
    return rows


def test_errors_are_as_small_as_plain_torch_makes_them(measured: list[dict[str, Any]]) -> None:
    for row in measured:
        assert complaints(row["errors"], row["dtype"]) == [], row


@pytest.mark.parametrize("provider", ["portable", "hopper"])
def test_what_must_never_happen_does_not(provider: str) -> None:
    process = start("safety", provider)
    output, _ = process.communicate()
    assert process.returncode == 0
    held = json.loads(output.splitlines()[-1])
    assert len(held) == 11
    assert all(held.values()), held
