"""What a run's steps took makes a hardware file better, and what they do not explain is reported."""

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from tests.compiler.support import compile_fragment, two_phases

from trainwright.compiler.cost.case import Case, parts_of
from trainwright.compiler.cost.time import step_time
from trainwright.compiler.improve import NothingMeasuredError, improve, measured_phases
from trainwright.spec.artefact import METRICS_FILE, store_folder
from trainwright.spec.device import Curve, Efficiency, HardwareFile, Peak, read_hardware
from trainwright.spec.hardware_toml import hardware_toml
from trainwright.spec.plan import PhaseStage, Plan, encode

FLAT = Efficiency(
    matmul=((0.01, 0.5), (10.0, 0.8)), attention_forward=((1.0, 0.4),), attention_backward=((1.0, 0.3),),
    memory=((1.0, 0.5),),
)  # fmt: skip
ASSUMED = HardwareFile(
    name="made up", device="cpu", memory_bytes=1 << 34, memory_bytes_per_s=1e11, peak_flops=Peak(fp32=1e11),
    efficiency=FLAT,
)  # fmt: skip
TWO_PHASES = f'[cluster]\ngpu = "local"\n{two_phases(1024)}'


def scaled(curve: Curve, factor: float) -> Curve:
    return tuple((size, share * factor) for size, share in curve)


def truth(matmul: float, attention: float, memory: float) -> HardwareFile:
    """The machine as it is: not as fast as assumed."""
    efficiency = Efficiency(
        matmul=scaled(FLAT.matmul, matmul),
        attention_forward=scaled(FLAT.attention_forward, attention),
        attention_backward=scaled(FLAT.attention_backward, attention),
        memory=scaled(FLAT.memory, memory),
    )
    return structs.replace(ASSUMED, efficiency=efficiency)


def planned(folder: Path) -> Plan:
    (folder / "hardware").mkdir()
    (folder / "hardware" / "local.toml").write_text(hardware_toml(ASSUMED))
    _, compiled = compile_fragment(folder, TWO_PHASES)
    assert compiled.plan is not None, compiled.diagnostics
    return compiled.plan


def trained(plan: Plan, run: Path, machine: HardwareFile, *, profiled: bool) -> None:
    """Both phases were trained on that machine: slow first steps, then all alike."""
    for stage in plan.stages:
        if isinstance(stage, PhaseStage):
            step = step_time(Case.of(stage), parts_of(stage), machine)
            rows: list[dict[str, Any]] = [{"step": n, "perf/step_time_ms": step.time_s * 1e3} for n in range(1, 9)]
            rows[0]["perf/step_time_ms"] *= 5
            if profiled:
                matmul, attention = step.parts["matmul"], step.parts["attention"]
                for kind, part_s in {
                    "matmul": matmul, "attention": attention, "other": step.time_s - matmul - attention
                }.items():  # fmt: skip
                    rows[1][f"profile/{kind}_ms"] = part_s * 1100  # the profiler makes all slower alike
            folder = store_folder(run, stage)
            folder.mkdir(parents=True)
            (folder / METRICS_FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_each_kind_of_work_finds_its_own_factor(tmp_path: Path) -> None:
    plan, run = planned(tmp_path), tmp_path / "run"
    trained(plan, run, truth(0.5, 1.5, 0.25), profiled=True)
    found = improve(plan, measured_phases(plan, run), ASSUMED)
    assert found.factors == pytest.approx({"matmul": 0.5, "attention": 1.5, "memory": 0.25}, rel=0.02)
    assert min(found.before_pct.values()) < -20
    assert found.after_pct == pytest.approx({"short": 0.0, "long": 0.0}, abs=0.5)
    assert found.hardware.residual == pytest.approx({"short": 1.0, "long": 1.0}, abs=0.005)


def test_without_a_profile_one_factor_serves_and_the_rest_is_reported(tmp_path: Path) -> None:
    plan, run = planned(tmp_path), tmp_path / "run"
    trained(plan, run, truth(0.5, 0.1, 0.5), profiled=False)
    found = improve(plan, measured_phases(plan, run), ASSUMED)
    assert len(set(found.factors.values())) == 1
    assert found.after_pct["short"] > 1  # attention is the slow one, of which the short phase has little
    assert found.after_pct["long"] < -1
    for name, error_pct in found.after_pct.items():
        assert found.hardware.residual[name] == pytest.approx(1 / (1 + error_pct / 100), rel=0.001)


def test_without_steps_or_a_peak_there_is_nothing_to_improve(tmp_path: Path) -> None:
    plan, run = planned(tmp_path), tmp_path / "run"
    with pytest.raises(NothingMeasuredError, match="no phase"):
        improve(plan, measured_phases(plan, run), ASSUMED)
    trained(plan, run, ASSUMED, profiled=False)
    with pytest.raises(NothingMeasuredError, match="no peak in fp32"):
        improve(plan, measured_phases(plan, run), structs.replace(ASSUMED, peak_flops=Peak()))


def test_the_command_improves_the_file_that_is_there(workspace: Any) -> None:
    plan, run = planned(workspace.folder), workspace.folder / "runs" / "base"
    trained(plan, run, truth(0.5, 0.5, 0.5), profiled=True)
    (run / "plan.json").write_bytes(encode(plan))
    asked = workspace.trainwright("calibrate", "--from", "runs/base")
    assert asked.returncode == 1
    assert "would be written over" in asked.stderr
    done = workspace.trainwright("calibrate", "--from", "runs/base", "-y")
    assert done.returncode == 0, done.stderr
    assert "step of long: planned -4" in done.stdout
    local = read_hardware(workspace.folder / "hardware" / "local.toml")
    assert local.efficiency.memory[0][1] < 0.3  # of 0.5
    assert local.residual == pytest.approx({"short": 1.0, "long": 1.0}, abs=0.02)


def test_ranks_share_a_processor_and_not_a_gpu() -> None:
    shared = ASSUMED.of_rank(2)
    assert (shared.peak_flops.fp32, shared.memory_bytes_per_s, shared.memory_bytes) == (5e10, 5e10, 1 << 33)
    gpu = structs.replace(ASSUMED, device="cuda")
    assert gpu.of_rank(8) == gpu
