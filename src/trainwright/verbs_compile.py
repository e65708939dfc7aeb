"""Verbs that read specs and plans. Nothing here imports torch, and each import waits for the verb that needs it."""

import argparse
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from trainwright.compiler.pipeline import compile_spec
from trainwright.spec.codes import CODES
from trainwright.spec.diagnostics import Diagnostic, has_errors
from trainwright.spec.load import Loaded, load, load_members
from trainwright.spec.plan import PhaseStage, Plan, decode

if TYPE_CHECKING:
    from rich.console import Console

EXIT_OK, EXIT_FAILED, EXIT_INVALID, EXIT_INFEASIBLE, EXIT_WORK_TO_DO = 0, 1, 2, 3, 10


@dataclass(frozen=True)
class Compilation:
    """A spec that was compiled: the plan if it is right, and the resolved document as TOML."""

    loaded: Loaded
    plan: Plan | None

    @property
    def resolved(self) -> bytes:
        from trainwright.spec.show import show_spec

        return show_spec(self.loaded).encode()


def init(arguments: argparse.Namespace) -> int:
    """`NAME.toml` is a commented starter spec; an existing file is left alone."""
    from trainwright.spec.starter import starter

    path = Path(f"{arguments.name}.toml")
    if path.exists():
        fail(f"{path} exists already")
        return EXIT_INVALID
    try:
        text = starter(arguments.name, arguments.preset, full=arguments.full)
    except ValueError as error:
        fail(str(error))
        return EXIT_INVALID
    path.write_text(text, encoding="utf-8")
    print(json.dumps({"spec": str(path)}) if arguments.json else f"wrote {path}; next: trainwright check {path}")
    return EXIT_OK


def check(arguments: argparse.Namespace) -> int:
    """Every mistake was told; the exit code says whether there is one."""
    members = _members(arguments)
    if len(members) > 1:
        from trainwright import verbs_sweep

        return verbs_sweep.check(members, arguments)
    loaded, compiled = members[0], compile_spec(members[0])
    form = arguments.format or ("json" if arguments.json else "text")
    tell(compiled.diagnostics, loaded, arguments, form=form)
    if form == "text" and not arguments.quiet and compiled.plan is not None:
        plan = compiled.plan
        print(f"{arguments.spec}: no mistake in {len(plan.stages)} stages, {plan_size(plan)}")
    return exit_code(compiled.diagnostics)


def show(arguments: argparse.Namespace) -> int:
    """The resolved spec with the origin of each value, or a plan's summary, stands on stdout."""
    if is_plan(arguments.file):
        plan, code = _plan_from(arguments.file, arguments)
        if plan is None:
            return code
        if no_such_stage(plan, arguments):
            return EXIT_INVALID
        show_plan(plan, arguments.runs / plan.name, arguments)
        return EXIT_OK if html_written(plan, arguments) and trace_written(plan, arguments) else EXIT_FAILED
    if arguments.stage or arguments.html or arguments.trace:
        fail(f"{arguments.file} is a spec; `trainwright plan {arguments.file}` shows its stages")
        return EXIT_INVALID
    loaded = _load(arguments.file, arguments)
    tell(loaded.diagnostics, loaded, arguments)
    if loaded.spec is None:
        return EXIT_INVALID
    if arguments.json:
        print(msgspec.json.format(msgspec.json.encode(loaded.spec), indent=2).decode())
    else:
        from trainwright.spec.show import show_spec

        print(show_spec(loaded), end="")
    return EXIT_OK


def graph(arguments: argparse.Namespace) -> int:
    """The stage graph stands on stdout."""
    from trainwright.compiler.draw import draw

    plan, code = _plan_from(arguments.spec, arguments)
    if plan is None:
        return code
    print(draw(plan, "json" if arguments.json else arguments.format))
    return EXIT_OK


def plan(arguments: argparse.Namespace) -> int:
    """The plan was shown, and written if a file was named."""
    if arguments.search:
        from trainwright.verbs_search import plan_search

        return plan_search(arguments)
    if arguments.objective or arguments.top or arguments.all:
        fail("`--objective`, `--top` and `--all` belong to `--search`")
        return EXIT_INVALID
    # What shows one plan in depth needs one: `load` asks for `--only`.
    in_depth = arguments.stage or arguments.html or arguments.trace or arguments.trace_memory
    members = [_load(arguments.spec, arguments)] if in_depth else _members(arguments)
    if len(members) > 1:
        from trainwright import verbs_sweep

        return verbs_sweep.plan(members, arguments)
    folder = arguments.output.parent if arguments.output else None
    compiled, code = _compiled_or_reported(members[0], arguments, folder)
    if compiled is None or compiled.plan is None:
        return code
    if no_such_stage(compiled.plan, arguments):
        return EXIT_INVALID
    if arguments.trace_memory:
        from trainwright.verbs_trace import trace_memory

        return trace_memory(compiled.plan, arguments)
    work = show_plan(compiled.plan, arguments.runs / compiled.plan.name, arguments)
    write_plan(compiled.plan, arguments)
    if not (html_written(compiled.plan, arguments) and trace_written(compiled.plan, arguments)):
        return EXIT_FAILED
    return EXIT_WORK_TO_DO if arguments.detailed_exitcode and work else EXIT_OK


def diff(arguments: argparse.Namespace) -> int:
    """What differs between the two, and which stages that makes stale, stands on stdout."""
    from trainwright.compiler.diff import diff_plans

    plans = []
    for path in (arguments.old, arguments.new):
        made, code = _plan_from(path / "plan.json" if path.is_dir() else path, arguments)
        if made is None:
            return code
        plans.append(made)
    run = arguments.old if arguments.old.is_dir() else arguments.runs / plans[0].name
    difference = diff_plans(plans[0], plans[1], run)
    from trainwright.compiler.present.diff import present_diff

    if arguments.json:
        print(json.dumps(difference.to_json(), indent=2, ensure_ascii=False))
    else:
        present_diff(difference, console(arguments))
    return EXIT_OK


def explain(arguments: argparse.Namespace) -> int:
    """The page of the code stands on stdout; without a code, the list of all."""
    if arguments.code is None:
        for row in CODES.values():
            print(f"{row.code}  {row.name:32}  {row.title}")
        return EXIT_OK
    from trainwright.spec.codes import page

    text = page(arguments.code)
    if text is None:
        fail(f"no such code: {arguments.code}; `trainwright explain` lists them all")
        return EXIT_INVALID
    print(text, end="")
    return EXIT_OK


def schema(arguments: argparse.Namespace) -> int:
    """The published schema stands on stdout."""
    from trainwright.spec.schema import field_schema, published_schema

    if arguments.field is None:
        print(json.dumps(published_schema(arguments.of), indent=2))
        return EXIT_OK
    found = field_schema(arguments.field)
    if found is None:
        fail(f"the spec has no `{arguments.field}`")
        return EXIT_INVALID
    print(json.dumps(found, indent=2))
    return EXIT_OK


# --- shared with verbs_run -------------------------------------------------------------------------------------------


def fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)


def is_plan(path: Path) -> bool:
    return path.suffix == ".json"


def compile_or_report(
    spec: Path, arguments: argparse.Namespace, *, plan_folder: Path | None = None
) -> tuple[Compilation | None, int]:
    """The compiled spec; None, all mistakes told, and the exit code if it is wrong."""
    return _compiled_or_reported(_load(spec, arguments), arguments, plan_folder)


def _compiled_or_reported(
    loaded: Loaded, arguments: argparse.Namespace, plan_folder: Path | None
) -> tuple[Compilation | None, int]:
    compiled = compile_spec(loaded, plan_folder=plan_folder)
    tell(compiled.diagnostics, loaded, arguments)
    if compiled.plan is None:
        return None, exit_code(compiled.diagnostics)
    return Compilation(loaded, compiled.plan), EXIT_OK


def show_plan(made: Plan, run_folder: Path, arguments: argparse.Namespace) -> bool:
    """The plan stands on stdout beside what the run's folder holds, or one stage of it; True if there is work to do."""
    from trainwright.compiler.review import review

    verdicts = review(made, run_folder)
    one = next((verdict for verdict in verdicts if verdict.stage == arguments.stage), None)
    if arguments.json:
        from trainwright.compiler.present.document import plan_to_json, stage_to_json

        document = stage_to_json(made, one) if one else plan_to_json(made, verdicts)
        print(json.dumps(document, indent=2, ensure_ascii=False))
    elif one is not None:
        from trainwright.compiler.present.stage import present_stage

        present_stage(made, one, console(arguments))
    elif not arguments.quiet:
        from trainwright.compiler.present.plan import present_plan

        present_plan(made, verdicts, console(arguments), verbose=arguments.verbose)
    return any(verdict.action != "reuse" for verdict in verdicts)


def write_plan(made: Plan, arguments: argparse.Namespace) -> None:
    """The plan's bytes lie in the file that was named, if one was."""
    from trainwright.compiler.emit import emit

    if arguments.output:
        data = emit(made)
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_bytes(data)
        if not arguments.json and not arguments.quiet:
            print(f"wrote {arguments.output}; next: trainwright run {arguments.output}")


def html_written(made: Plan, arguments: argparse.Namespace) -> bool:
    """The plan's page is written if one was asked for; False, and told, if that cannot be."""
    if arguments.html is None:
        return True
    from trainwright.compiler.page.write import write_page
    from trainwright.compiler.review import review

    try:
        write_page(made, review(made, arguments.runs / made.name), arguments.html)
    except OSError as error:
        fail(f"cannot write {arguments.html}: {error.strerror}")
        return False
    if not arguments.json and not arguments.quiet:
        print(f"wrote {arguments.html}")
    return True


def trace_written(made: Plan, arguments: argparse.Namespace) -> bool:
    """The trace of the plan's steps is written if one was asked for; False, and told, if that cannot be."""
    if arguments.trace is None:
        return True
    from trainwright.compiler.chrome_trace import write_trace

    try:
        write_trace(made, arguments.trace)
    except ValueError as error:
        fail(str(error))
        return False
    except OSError as error:
        fail(f"cannot write {arguments.trace}: {error.strerror}")
        return False
    if not arguments.json and not arguments.quiet:
        print(f"wrote {arguments.trace}; open it in chrome://tracing or ui.perfetto.dev")
    return True


def no_such_stage(made: Plan, arguments: argparse.Namespace) -> bool:
    """True, and told, if the stage asked for is none of the plan's."""
    from trainwright.compiler.nearest import nearest_name

    names = [stage.name for stage in made.stages]
    if arguments.stage is None or arguments.stage in names:
        return False
    fail(f"`{made.name}` has no stage `{arguments.stage}`; {nearest_name(arguments.stage, names)}")
    return True


def tell(
    diagnostics: list[Diagnostic], loaded: Loaded, arguments: argparse.Namespace, *, form: str | None = None
) -> None:
    """The diagnostics stand on stderr as text, or on stdout in the form asked for."""
    from trainwright.spec import render

    form = form or "text"
    if form == "json":
        print(render.render_json(diagnostics))
    elif form == "github":
        print(render.render_github(diagnostics), end="")
    elif shown := [d for d in diagnostics if d.severity == "error" or not arguments.quiet]:
        color = sys.stderr.isatty() if arguments.color is None else arguments.color
        print(render.render_text(shown, loaded.sources, color=color), file=sys.stderr)


def console(arguments: argparse.Namespace) -> "Console":
    from rich.console import Console

    no_color = None if arguments.color is None else not arguments.color
    return Console(no_color=no_color, width=None if sys.stdout.isatty() else 100)


def plan_size(made: Plan) -> str:
    """How big what the plan trains is, in a few words."""
    from trainwright.compiler.figures import rounded

    phases = [stage for stage in made.stages if isinstance(stage, PhaseStage)]
    tokens = sum(stage.steps * stage.tokens_per_step for stage in phases)
    noun = "phase" if len(phases) == 1 else "phases"
    return f"{phases[0].model.parameters:,} parameters, {rounded(tokens)} tokens in {len(phases)} {noun}"


def exit_code(diagnostics: list[Diagnostic]) -> int:
    """0 without an error, 3 if all are about what fits, else 2."""
    if not has_errors(diagnostics):
        return EXIT_OK
    errors = [diagnostic for diagnostic in diagnostics if diagnostic.severity == "error"]
    return EXIT_INFEASIBLE if all(CODES[error.code].infeasible for error in errors) else EXIT_INVALID


# --- private ---------------------------------------------------------------------------------------------------------


def _load(path: Path, arguments: argparse.Namespace) -> Loaded:
    return load(path, arguments.sets, os.environ, arguments.only)


def _members(arguments: argparse.Namespace) -> list[Loaded]:
    """The members of the sweep that the spec is; the spec or the member chosen where there is one."""
    if arguments.only is not None:
        return [_load(arguments.spec, arguments)]
    return load_members(arguments.spec, arguments.sets, os.environ)


def _plan_from(path: Path, arguments: argparse.Namespace) -> tuple[Plan | None, int]:
    """The plan in the file, or that of the spec in it."""
    if not is_plan(path):
        compiled, code = compile_or_report(path, arguments)
        return (compiled.plan if compiled else None), code
    try:
        return decode(path.read_bytes()), EXIT_OK
    except OSError as error:
        fail(f"cannot read {path}: {error.strerror}")
    except msgspec.DecodeError as error:
        fail(f"{path} is not a plan of this version: {error}")
    return None, EXIT_INVALID
