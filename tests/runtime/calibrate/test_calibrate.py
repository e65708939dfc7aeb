"""What was measured becomes a hardware file that a spec finds and that says the same when it is read."""

import json
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import pytest

from trainwright.compiler.improve import planned_step_s
from trainwright.runtime.calibrate.links import Links, fit
from trainwright.runtime.calibrate.measure import Measurements, hardware_of
from trainwright.runtime.calibrate.operators import Point
from trainwright.spec.artefact import WARM_UP_STEPS
from trainwright.spec.device import HardwareFile, Link, hardware_path, load_hardware, mistakes, read_hardware
from trainwright.spec.hardware_toml import hardware_toml
from trainwright.spec.plan import PhaseStage, decode


def point(giga: float, rate: float) -> Point:
    """`giga` units of work at `rate` giga a second."""
    return Point("made up", giga * 1e9, giga / rate)


def measurements() -> Measurements:
    sizes = (4096, 1 << 20, 1 << 26)
    return Measurements(
        precision="fp32",
        load=0.25,
        products=(point(0.01, 50.0), point(1.0, 80.0), point(1.1, 60.0), point(100.0, 100.0)),
        other_peak=point(10.0, 400.0),
        forward=(point(0.1, 20.0), point(10.0, 50.0)),
        backward=(point(0.25, 10.0), point(25.0, 40.0)),
        memory=((point(0.001, 10.0), point(0.002, 10.0)), (point(0.1, 40.0), point(0.3, 20.0))),
        launch_s=3e-6,
        links=Links({2: {size: 1e-4 + size / 1e9 for size in sizes}}, {size: 2e-5 + size / 4e9 for size in sizes}),
    )


def test_curves_are_shares_of_the_best_that_was_measured() -> None:
    made = hardware_of(measurements())
    assert (made.device, made.peak_flops.fp32, made.peak_flops.bf16) == ("cpu", 100e9, 400e9)
    assert made.efficiency.matmul[0] == (0.01, 0.5)
    assert made.efficiency.matmul[1] == pytest.approx((1.05, 2.1 / (1 / 80 + 1.1 / 60) / 100), rel=0.01)
    assert made.efficiency.matmul[-1] == (100.0, 1.0)
    assert made.memory_bytes_per_s == pytest.approx(40e9)
    assert made.efficiency.memory[1][1] == pytest.approx(0.4 / (0.1 / 40 + 0.3 / 20) / 40, rel=0.01)


def test_links_have_the_latency_and_the_share_of_all_reduces() -> None:
    link = hardware_of(measurements()).links.device
    assert link is not None
    assert link.latency_s == pytest.approx(1e-4)
    assert link.bytes_per_s == pytest.approx(4e9)
    assert link.share == pytest.approx(0.25)


def test_the_fit_finds_what_times_were_made_of_and_never_a_negative_latency() -> None:
    latency_s, rate = fit({size: 5e-5 + 2 * size / 3e9 for size in (1 << 10, 1 << 16, 1 << 24)}, 2.0)
    assert [latency_s, rate] == pytest.approx([5e-5, 3e9])
    assert fit({1000: 0.9e-6, 2000: 2e-6, 4000: 4e-6}, 1.0)[0] == 0.0


def test_the_file_says_what_was_measured_without_a_mistake(tmp_path: Path) -> None:
    path = tmp_path / "local.toml"
    made = msgspec.structs.replace(hardware_of(measurements()), residual={"short": 1.25, "a.b": 0.5})
    path.write_text(hardware_toml(made))
    assert mistakes(path) == []
    again = read_hardware(path)
    assert plain(again) == pytest.approx(plain(made))


def plain(file: HardwareFile) -> dict[str, Any]:
    """Every number of the file by its path, and every text."""
    found: dict[str, Any] = {}

    def walk(value: object, path: str) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(inner, f"{path}/{key}")
        elif isinstance(value, list):
            for key, inner in enumerate(value):
                walk(inner, f"{path}/{key}")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[path] = value
        else:
            found[f"{path}={value}"] = 0

    walk(msgspec.to_builtins(file), "")
    return found


def test_a_spec_finds_its_own_file_then_the_users_then_the_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    users = tmp_path / "config" / "trainwright" / "hardware"
    own = tmp_path / "project" / "hardware"
    for folder, name in ((users, "of the user"), (own, "of the project")):
        folder.mkdir(parents=True)
        (folder / "local.toml").write_text(f'name = "{name}"\ndevice = "cpu"\n')
    found = load_hardware("local", tmp_path / "project")
    assert found is not None
    assert found.name == "of the project"
    (own / "local.toml").unlink()
    assert hardware_path("local", tmp_path / "project") == users / "local.toml"
    assert load_hardware("local") is None


@pytest.mark.slow
def test_this_machine_is_measured_and_a_spec_is_planned_on_it(workspace: Any) -> None:
    done = workspace.trainwright("calibrate", "--quick", "-o", "examples/hardware/local.toml", "--json", timeout=300)
    assert done.returncode == 0, done.stderr
    measured = msgspec.convert(json.loads(done.stdout)["hardware"], HardwareFile)
    assert isinstance(measured.links.device, Link | None)
    planned = workspace.trainwright("plan", "examples/tiny.toml", "-s", "cluster.gpu=local", "--json")
    assert planned.returncode == 0, planned.stderr
    estimates = json.loads(planned.stdout)["estimates"]
    assert all(estimate["step"]["time_s"] > 0 for estimate in estimates)
    again = workspace.trainwright("calibrate", "--quick", "-q", "-o", "examples/hardware/local.toml", timeout=300)
    assert again.returncode == 1
    assert "there already" in again.stderr


@pytest.mark.slow
def test_doctor_says_whether_there_is_such_a_file(workspace: Any) -> None:
    alone = {"XDG_CONFIG_HOME": str(workspace.folder)}
    assert (
        "trainwright calibrate" in json.loads(workspace.trainwright("doctor", "--json", **alone).stdout)["calibrated"]
    )
    path = workspace.folder / "hardware" / "local.toml"
    path.parent.mkdir()
    path.write_text(hardware_toml(hardware_of(measurements())))
    assert (
        "hardware/local.toml, 20" in json.loads(workspace.trainwright("doctor", "--json", **alone).stdout)["calibrated"]
    )


@pytest.mark.slow
def test_a_run_improves_the_file_and_says_how_far_its_plan_was_off(micro: Any) -> None:
    rows = [json.loads(line) for line in (micro.folder / "runs" / "micro" / "metrics.jsonl").read_text().splitlines()]
    errors = [row["plan/memory_error_pct"] for row in rows if "plan/memory_error_pct" in row]
    assert len(errors) == 11 + 3  # from the second step of each phase on
    assert max(map(abs, errors)) < 1
    assert not [row for row in rows if "plan/step_time_error_pct" in row]  # of the kind `cpu` no speed is known
    nothing = micro.trainwright("calibrate", "--from", "runs/micro", "-o", "fresh.toml")
    assert nothing.returncode == 2
    assert "no peak in fp32: measure it first" in nothing.stderr
    path = micro.folder / "measured.toml"
    path.write_text(hardware_toml(hardware_of(measurements())))
    done = micro.trainwright("calibrate", "--from", "runs/micro", "-o", "measured.toml", "-y", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("% off before") == 2
    plan = decode((micro.folder / "runs" / "micro" / "plan.json").read_bytes())
    improved = read_hardware(path)
    measured_s = {
        name: median([row["perf/step_time_ms"] / 1e3 for row in rows if row["stage"] == name][WARM_UP_STEPS:])
        for name in ("first", "second")
    }
    planned_s = {
        stage.name: planned_step_s(plan, stage, improved) for stage in plan.stages if isinstance(stage, PhaseStage)
    }
    assert improved.residual == pytest.approx(
        {name: took_s / planned_s[name] for name, took_s in measured_s.items()}, rel=1e-3
    )
