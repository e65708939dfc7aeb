"""A phase's metrics say how far the plan was off, in time and in memory."""

import json
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import pytest

World = Callable[..., Any]
JOB = {"do": "phase", "steps": 6, "planned": {"step_s": 0.5, "memory_bytes": 20_000_000}}


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_steps_after_the_warm_up_and_one_steps_memory_are_compared(world: World, tmp_path: Path) -> None:
    (summary,) = world(1, **JOB, layouts=[{}], out=[str(tmp_path)])
    found = rows(tmp_path)
    assert ["plan/step_time_error_pct" in row for row in found] == [False] * 3 + [True] * 3
    for last in (4, 5, 6):
        measured_s = median(row["perf/step_time_ms"] for row in found[3:last]) / 1e3
        assert found[last - 1]["plan/step_time_error_pct"] == pytest.approx((0.5 - measured_s) / measured_s * 100)
    second = found[1]
    assert second["memory/parameters_gb"] == summary["parameters"] * 4 / 1e9
    assert second["memory/gradients_gb"] >= summary["parameters"] * 4 / 1e9
    assert second["memory/optimizer_gb"] == pytest.approx(summary["parameters"] * 8 / 1e9, rel=0.01)
    # At least what one sequence of two in the four layers must keep: inputs of products, of norms and of attention.
    assert second["memory/step_gb"] > 4 * 2 * 32 * (8 * 64 + 3 * 160) * 4 / 2 / 1e9
    planned_gb, measured_gb = 0.02, second["memory/allocated_gb"]
    error_pct = (planned_gb - measured_gb) / measured_gb * 100
    assert [row["plan/memory_error_pct"] for row in found[1:]] == pytest.approx([error_pct] * 5)
    assert "plan/memory_error_pct" not in found[0]
    parts_ms = {name: value for name, value in second.items() if name.startswith("profile/")}
    assert min(parts_ms[f"profile/{kind}_ms"] for kind in ("matmul", "attention", "other")) > 0
    assert sum(parts_ms.values()) < second["perf/step_time_ms"]


@pytest.mark.slow
def test_shards_of_the_optimizer_are_counted_as_they_lie(world: World, tmp_path: Path) -> None:
    whole, shared = tmp_path / "whole", tmp_path / "shared"
    world(1, **JOB, precision="bf16", layouts=[{}], out=[str(whole)])
    (summary,) = world(2, **JOB, precision="bf16", layouts=[{"data": 2}], out=[str(shared)])
    one, two = rows(whole)[1], rows(shared)[1]
    assert one["memory/optimizer_gb"] == pytest.approx(summary["parameters"] * 12 / 1e9, rel=0.01)
    assert two["memory/optimizer_gb"] == pytest.approx(one["memory/optimizer_gb"] / 2, rel=0.05)


def test_without_planned_figures_nothing_is_compared() -> None:
    from trainwright.runtime.train.memory import StepMemory
    from trainwright.runtime.train.observe import Observation
    from trainwright.runtime.train.planned import Planned

    planned = Planned(None)
    memory = StepMemory(1e9, 2e9, 3e9, 4e9)
    seen = Observation(1.0, 1.0, {"matmul": 0.5, "attention": 0.25})
    values = [planned.after_step(1.0, memory if step == 1 else None, seen) for step in range(6)]
    assert values[1]["profile/other_ms"] == 250.0
    assert values[1]["memory/allocated_gb"] == 10.0
    assert [list(value) for number, value in enumerate(values) if number != 1] == [[]] * 5
