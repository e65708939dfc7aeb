"""Verbs that execute, or that look at what was executed. `runtime` is imported inside them, since most import torch."""

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Any

import msgspec

from trainwright import __version__
from trainwright.spec import artefact
from trainwright.spec.plan import OtherVersionError, Plan, RewardStage, TrainingStage, decode
from trainwright.verbs_compile import EXIT_INFEASIBLE, EXIT_INVALID, compile_or_report, fail, is_plan, show_plan

_EXIT_STALE = 4


def run(arguments: argparse.Namespace) -> int:
    """Every stage of the plan is done, or the exit code says why not."""
    if is_plan(arguments.file):
        return _run_plan(arguments)
    compiled, code = compile_or_report(arguments.file, arguments)
    if compiled is None or compiled.plan is None:
        return code
    folder: Path = arguments.runs / compiled.plan.name
    if not arguments.quiet and not arguments.json:
        show_plan(compiled.plan, folder, arguments)
    if not arguments.yes and not agreed():
        return 1
    root = os.path.relpath(arguments.file.resolve().parent, folder.resolve())
    return _execute(
        compiled.plan, folder, root, arguments, spec=arguments.file.read_bytes(), resolved=compiled.resolved
    )


def resume(arguments: argparse.Namespace) -> int:
    """The run goes on with the plan that it was started with."""
    plan, code = _read_plan(arguments.run / "plan.json")
    if plan is None:
        return code
    return _execute(plan, arguments.run, plan.root, arguments)


def _run_plan(arguments: argparse.Namespace) -> int:
    from trainwright.compiler.stale import stale_compiler, stale_specs

    plan, code = _read_plan(arguments.file)
    if plan is None:
        return code
    other = stale_compiler(plan)
    if other is not None:
        fail(f"{arguments.file}: {other}: plan it again")
        return _EXIT_STALE
    spec_folder = (arguments.file.resolve().parent / plan.root).resolve()
    changed = stale_specs(plan, spec_folder)
    if changed:
        # The plan is whole without its spec, but who changed one and runs the other may have forgotten to plan again.
        names = ", ".join(os.path.relpath(spec_folder / name) for name in changed)
        fail(f"{names} changed since {arguments.file} was made; what would run is the plan as it was")
        if not arguments.yes and not agreed():
            return _EXIT_STALE
    folder: Path = arguments.runs / plan.name
    root = os.path.relpath(spec_folder, folder.resolve())
    return _execute(plan, folder, root, arguments)


def _execute(
    plan: Plan,
    folder: Path,
    root: str,
    arguments: argparse.Namespace,
    *,
    spec: bytes | None = None,
    resolved: bytes | None = None,
) -> int:
    blocking = [notice for notice in plan.notices if notice.blocks]
    if blocking:
        for notice in blocking:
            fail(f"`{notice.key}`: {notice.message}")
        return EXIT_INFEASIBLE
    if not can_run():
        return EXIT_INVALID
    from trainwright.compiler.stale import stale_inputs

    # The run's folder may not be there yet, so its `..` are worked out on the text.
    stale = stale_inputs(plan, Path(os.path.normpath(folder.resolve() / root)))
    if stale:
        fail(f"{', '.join(stale)} since the plan was made: plan it again")
        return _EXIT_STALE
    from trainwright.runtime.execute import Documents, StageFailed, execute, verify, verify_devices, verify_kernels

    def say(text: str) -> None:
        print(text, file=sys.stderr if arguments.json else sys.stdout, flush=True)

    plan = msgspec.structs.replace(plan, root=root)
    try:
        verify(plan)
        verify_devices(plan)
        verify_kernels(plan)
    except StageFailed as error:
        fail(str(error))
        return error.exit_code
    code = execute(plan, folder, documents=Documents(spec, resolved), say=say)
    from trainwright.runtime.report.write import write_report

    if code != _EXIT_STALE:
        say(f"report: {write_report(folder)}")
    if arguments.json:
        print(json.dumps({"run": str(folder), "exit_code": code}))
    return code


def cancel(arguments: argparse.Namespace) -> int:
    """The run was asked to save and end; it does so after the step it is in."""
    from trainwright.runtime.store import STOP_FILE, RunLocked, locked

    if plan_of(arguments.run) is None:
        return EXIT_INVALID
    try:
        with locked(arguments.run):
            print(f"{arguments.run} is not running")
            return 0
    except RunLocked:
        (arguments.run / STOP_FILE).touch()
        print(f"asked {arguments.run} to save a checkpoint and end")
        return 0


def status(arguments: argparse.Namespace) -> int:
    """A line per stage: done, stopped at a step, or waiting."""
    plan = plan_of(arguments.run)
    if plan is None:
        return EXIT_INVALID
    rows = [_stage_status(plan, stage.name, arguments.run) for stage in plan.stages]
    if arguments.json:
        print(json.dumps(rows, indent=2))
    else:
        width = max(len(row["stage"]) for row in rows)
        for row in rows:
            print(f"{row['stage']:{width}}  {row['state']:11}  {row['detail']}".rstrip())
    return 0


def _stage_status(plan: Plan, name: str, folder: Path) -> dict[str, str]:
    stage = plan.stage(name)
    where = artefact.store_folder(folder, stage)
    result = artefact.read_result(where)
    if result is not None:
        return {"stage": name, "state": "done", "detail": f"{result.summary.get('seconds', '?')} s, {result.finished}"}
    if artefact.read_identity(where) is None:
        return {"stage": name, "state": "waiting", "detail": ""}
    step = artefact.latest_checkpoint(where)
    if isinstance(stage, TrainingStage):
        planned = f" of {stage.steps}" if stage.steps else ""  # 0: the data say how many
        return {"stage": name, "state": "unfinished", "detail": f"checkpoint at step {step or 0}{planned}"}
    return {"stage": name, "state": "unfinished", "detail": "starts again"}


def report(arguments: argparse.Namespace) -> int:
    """`report.html` of the run was written, and its path printed; with --json, what it shows."""
    if not can_run() or plan_of(arguments.run) is None:
        return EXIT_INVALID
    from trainwright.runtime.report.gather import gather
    from trainwright.runtime.report.plain import plain
    from trainwright.runtime.report.write import write_report

    path = write_report(arguments.run)
    if arguments.json:
        print(json.dumps(plain(gather(arguments.run)), indent=2, ensure_ascii=False))
    else:
        print(f"report: {path}")
    return 0


def sample(arguments: argparse.Namespace) -> int:
    """The model's continuation of the prompt stands on stdout, word by word as it is made."""
    plan = plan_of(arguments.run) if can_run() else None
    if plan is None:
        return EXIT_INVALID
    done = [
        stage.name
        for stage in plan.stages
        if isinstance(stage, TrainingStage)
        and not isinstance(stage, RewardStage)
        and artefact.latest_checkpoint(artefact.store_folder(arguments.run, stage))
    ]
    name = arguments.stage or (done[-1] if done else None)
    if name not in done:
        known = f"trained so far: {', '.join(done)}" if done else "no stage has a checkpoint yet"
        fail(f"no model to sample from `{name}`; {known}" if name else known)
        return EXIT_INVALID
    prompt = " ".join(arguments.prompt) if arguments.prompt else sys.stdin.read()
    from trainwright.runtime.evaluate.sampler import open_model

    with open_model(plan, arguments.run, name) as sampler:
        stream = not arguments.json

        def show(text: str) -> None:
            if stream:
                print(text, end="", flush=True)

        show(f"{prompt}\n" if sampler.chat else prompt)
        text = sampler.complete(
            prompt,
            max_tokens=arguments.max_tokens,
            temperature=arguments.temperature,
            top_p=arguments.top_p,
            seed=arguments.seed,
            on_text=show,
        )
    print("" if stream else json.dumps({"stage": name, "prompt": prompt, "text": text}, ensure_ascii=False))
    return 0


def doctor(arguments: argparse.Namespace) -> int:
    """What this machine has, and what is missing to run a plan."""
    facts: dict[str, Any] = {
        "trainwright": __version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "free disk here": f"{shutil.disk_usage('.').free / 2**30:.0f} GiB",
    }
    for package in ("torch", "megatron-core", "sentencepiece", "safetensors", "tensorboard", "triton", "flash-attn"):
        try:
            facts[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            facts[package] = "not installed"
    if facts["torch"] != "not installed":
        import torch

        facts["devices"] = [
            f"{torch.cuda.get_device_name(i)}, {torch.cuda.get_device_properties(i).total_memory / 2**30:.0f} GiB"
            for i in range(torch.cuda.device_count())
        ] or ["cpu"]
        facts["backend"] = "nccl" if torch.cuda.is_available() else "gloo"
        facts |= _kernels()
    facts["calibrated"] = _calibrated()
    missing = _missing_packages()
    facts["can run plans"] = (
        "yes" if not missing else f"no: {', '.join(missing)} missing (pip install 'trainwright[train]')"
    )
    if arguments.json:
        print(json.dumps(facts, indent=2))
    else:
        width = max(map(len, facts))
        for key, value in facts.items():
            print(f"{key:{width}} {', '.join(value) if isinstance(value, list) else value}")
    return 0


def _kernels() -> dict[str, str]:
    """What training would use for each operator here, why, and what of ours was validated on this chip."""
    import torch

    from trainwright.kernels import fused, validated
    from trainwright.kernels.attention import choose

    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    facts = {"chip": validated.chip(device)}
    for dtype in (torch.bfloat16, torch.float32):
        choice = choose("auto", dtype, 128, device)
        warning = f"; {choice.warning}" if choice.warning else ""
        facts[f"attention, {validated.name_of(dtype)}"] = f"{choice.name}: {choice.why}{warning}"
    for operator in fused.OPERATORS:
        version = fused.choose(operator, torch.bfloat16, device)
        facts[operator] = f"{version.name}: {version.why}"
    facts["cross_entropy"] = "torch: of logits, where the loss is not fused"
    facts["validated here"] = validated.summary(device)
    return facts


def _calibrated() -> str:
    """The hardware file that a spec in this folder finds as `local`, and what it was measured on."""
    from trainwright.spec.device import hardware_path, read_hardware

    path = hardware_path("local", Path())
    if path is None:
        return "no: `trainwright calibrate` writes hardware/local.toml"
    try:
        measured = read_hardware(path).measured
    except ValueError as error:
        return f"{path} is no hardware file: {error}"
    return f"{path}, {measured.date}, {measured.machine}" if measured else f"{path}, written by hand"


def can_run() -> bool:
    """Whether what the runtime imports is installed; told if it is not."""
    missing = _missing_packages()
    if missing:
        fail(f"this needs {', '.join(missing)}: pip install 'trainwright[train]'")
    return not missing


def _missing_packages() -> list[str]:
    needed = (
        "torch", "megatron-core", "einops", "sentencepiece", "psutil", "safetensors", "tensorboard", "jinja2",
        "zstandard",
    )  # fmt: skip
    found = {name.lower() for distribution in importlib.metadata.distributions() if (name := distribution.name)}
    return [name for name in needed if name not in found]


def plan_of(run_folder: Path) -> Plan | None:
    return _read_plan(run_folder / "plan.json")[0]


def _read_plan(path: Path) -> tuple[Plan | None, int]:
    """The plan in the file; None, the reason told, and the exit code if there is none that can be used."""
    try:
        return decode(path.read_bytes()), 0
    except OSError as error:
        fail(f"cannot read {path}: {error.strerror}")
    except OtherVersionError as error:
        fail(f"{path} is a plan of another version: {error}; plan it again")
        return None, _EXIT_STALE
    except msgspec.DecodeError as error:
        fail(f"{path} is not a plan: {error}")
    return None, EXIT_INVALID


def agreed() -> bool:
    try:
        return input("Proceed? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        print()
        return False
