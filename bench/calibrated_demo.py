"""How right the plan of the demo is on this machine: measured once, run once, improved by that run.

    python bench/calibrated_demo.py [SPEC] [-s KEY=VALUE ...] [--out bench/results]

`trainwright calibrate`, `run` with `cluster.gpu=local`, and `calibrate --from` that run, in a folder of their own. Of
every phase: the error of the planned step time and memory before and after the improvement, and once more with the
phase left out of it, so that what a phase says of itself is told apart from what the others say of it.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from throughput import machine, machine_name

from trainwright.compiler.improve import improve, measured_phases, planned_step_s
from trainwright.spec.artefact import METRICS_FILE, store_folder
from trainwright.spec.device import read_hardware
from trainwright.spec.plan import PhaseStage, decode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec", type=Path, nargs="?", default=Path("examples/tiny.toml"))
    parser.add_argument("-s", "--set", dest="sets", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    before_run = machine(threads=0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(arguments.spec.parent, folder, dirs_exist_ok=True)
        sets = [word for each in ["cluster.gpu=local", *arguments.sets] for word in ("-s", each)]
        trainwright(folder, "calibrate", "-y")
        trainwright(folder, "run", arguments.spec.name, "-y", "-q", *sets)
        (run,) = (folder / "runs").iterdir()
        phases = errors(folder, run)
        trainwright(folder, "calibrate", "--from", str(run), "-y")
        improved = (folder / "hardware" / "local.toml").read_text(encoding="utf-8")
    result = {
        "machine": before_run,
        "versions": {package: version(package) for package in ("torch", "megatron-core")},
        "spec": str(arguments.spec),
        "sets": arguments.sets,
        "phases": phases,
        "hardware": improved.splitlines(),
    }
    out = arguments.out / machine_name()
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{datetime.now(UTC):%Y-%m-%d}-calibrated-demo.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for phase, figures in phases.items():
        print(phase, json.dumps(figures))
    print(f"written to {path}")


def trainwright(folder: Path, *words: str) -> None:
    subprocess.run([sys.executable, "-m", "trainwright", *words], cwd=folder, check=True)


def errors(folder: Path, run: Path) -> dict[str, dict[str, Any]]:
    """By phase: (planned - measured) / measured in percent."""
    plan = decode((run / "plan.json").read_bytes())
    hardware = read_hardware(folder / "hardware" / "local.toml")
    measured = measured_phases(plan, run)
    whole = improve(plan, measured, hardware)
    found = {}
    for phase in measured:
        name = phase.stage.name
        others = improve(plan, [each for each in measured if each is not phase], hardware).hardware
        found[name] = {
            "step_s": round(phase.step_s, 5),
            "measured_alone_pct": round(whole.before_pct[name], 2),
            "improved_pct": round(whole.after_pct[name], 2),
            "improved_by_others_pct": round((planned_step_s(plan, phase.stage, others) / phase.step_s - 1) * 100, 2),
            "memory_pct": memory_error_pct(run, phase.stage),
        }
    return found


def memory_error_pct(run: Path, stage: PhaseStage) -> float | None:
    """As the phase's own metrics have it; None if it had no second step."""
    lines = (store_folder(run, stage) / METRICS_FILE).read_text(encoding="utf-8").splitlines()
    found: float | None = json.loads(lines[-1]).get("plan/memory_error_pct")
    return None if found is None else round(found, 2)


if __name__ == "__main__":
    main()
