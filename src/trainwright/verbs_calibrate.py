"""`trainwright calibrate`: a hardware file of this machine, measured or improved by what a run's steps took."""

import argparse
import sys
from pathlib import Path

import msgspec

from trainwright.spec.device import HardwareFile, mistakes, read_hardware
from trainwright.spec.hardware_toml import hardware_toml
from trainwright.verbs_compile import EXIT_INVALID, EXIT_OK, fail
from trainwright.verbs_run import agreed, can_run, plan_of

EXIT_FAILED = 1


def calibrate(arguments: argparse.Namespace) -> int:
    """The hardware file was written."""
    path: Path = arguments.output
    if path.exists() and not arguments.yes:
        print(f"{path} is there already and would be written over.", file=sys.stderr)
        if not agreed():
            return EXIT_FAILED
    made, code = _improved(arguments) if arguments.run is not None else _measured(arguments)
    if made is None:
        return code
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(hardware_toml(made), encoding="utf-8")
    if arguments.json:
        print(msgspec.json.format(msgspec.json.encode({"file": str(path), "hardware": made}), indent=2).decode())
    else:
        print(f'wrote {path}; specs beside its folder find it by `[cluster] gpu = "{path.stem}"`')
    return EXIT_OK


def _measured(arguments: argparse.Namespace) -> tuple[HardwareFile | None, int]:
    if not can_run():
        return None, EXIT_INVALID
    from trainwright.runtime.calibrate.links import LinkError
    from trainwright.runtime.calibrate.measure import hardware_of, measure

    try:
        return hardware_of(measure(quick=arguments.quick, say=lambda text: _say(text, arguments))), EXIT_OK
    except LinkError as error:
        fail(f"the links could not be measured: {error}")
        return None, EXIT_FAILED


def _improved(arguments: argparse.Namespace) -> tuple[HardwareFile | None, int]:
    """The file that is there, or else the figures that the run was planned with, improved by the run."""
    from trainwright.compiler.improve import NothingMeasuredError, improve, measured_phases

    plan = plan_of(arguments.run)
    if plan is None:
        return None, EXIT_INVALID
    before = plan.hardware.figures
    if arguments.output.exists():
        wrong = mistakes(arguments.output)
        if wrong:
            fail(f"{arguments.output}: {wrong[0].message}")
            return None, EXIT_INVALID
        before = read_hardware(arguments.output)
    try:
        improved = improve(plan, measured_phases(plan, arguments.run), before)
    except NothingMeasuredError as error:
        fail(str(error))
        return None, EXIT_INVALID
    for name, factor in improved.factors.items():
        _say(f"{name}: {factor:.2f} of the speed that was assumed", arguments)
    for name, error_pct in improved.before_pct.items():
        after_pct = improved.after_pct[name]
        _say(f"step of {name}: planned {error_pct:+.1f} % off before, {after_pct:+.1f} % after", arguments)
    measured = improved.hardware.measured
    if measured is not None:
        measured = msgspec.structs.replace(measured, run=plan.name)
    return msgspec.structs.replace(improved.hardware, measured=measured), EXIT_OK


def _say(text: str, arguments: argparse.Namespace) -> None:
    if not arguments.quiet:
        print(text, file=sys.stderr if arguments.json else sys.stdout, flush=True)
