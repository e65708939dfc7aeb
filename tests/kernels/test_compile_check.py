"""Kernels compile for a GPU that is not there, and a kernel over its budget fails the check."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trainwright.kernels.compile_check import BUDGETS, Compiled, jobs, over_budget

pytest.importorskip("triton", reason="the portable kernels need triton, which exists for Linux alone")


def _check(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "trainwright.kernels.compile_check", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_every_configuration_has_a_budget() -> None:
    """That it keeps the budget is what `make compile-check` tells, with both versions of Triton."""
    assert {job.name for job in jobs(90)} == set(json.loads(BUDGETS.read_text()))


@pytest.mark.slow
def test_a_planted_spill_fails(tmp_path: Path) -> None:
    """The forward pass in two warps holds more accumulators than its threads have registers for."""
    done = _check("--only", "forward bf16 D128", "--warps", "2")
    assert done.returncode == 1
    assert "spills" in done.stdout


def test_a_kernel_is_held_to_each_part_of_its_budget() -> None:
    budget = {"registers": 200, "spill_bytes": 0, "shared_bytes": 65_536, "hgmma": 16, "tma": 8}
    good = Compiled("k", registers=200, spill_bytes=0, shared_bytes=65_536, hgmma=16, hmma=0, warnings=(), tma=8)
    assert over_budget(good, budget, 90) == []
    numbers = {"registers": 201, "spill_bytes": 4, "shared_bytes": 65_537, "hgmma": 8, "hmma": 4, "tma": 4}
    worse: dict[str, Any] = {**numbers, "warnings": ("C7510",)}
    for name, value in worse.items():
        assert len(over_budget(replace(good, **{name: value}), budget, 90)) == 1
