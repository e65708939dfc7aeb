"""`check` and `plan` of a sweep: every member of a `[[matrix]]` at once."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from trainwright.compiler.pipeline import Compiled, compile_spec
from trainwright.compiler.present.sweep import Outcome, present_sweep, sweep_to_json
from trainwright.spec.codes import CODES
from trainwright.spec.diagnostics import Diagnostic
from trainwright.spec.load import Loaded
from trainwright.spec.matrix import combined
from trainwright.verbs_compile import (
    EXIT_INFEASIBLE,
    EXIT_INVALID,
    EXIT_OK,
    EXIT_WORK_TO_DO,
    console,
    exit_code,
    fail,
    tell,
)


def check(members: Sequence[Loaded], arguments: argparse.Namespace) -> int:
    """Every mistake of every member was told, one that all have once; an error of any member is the sweep's."""
    compiled = [compile_spec(loaded) for loaded in members]
    diagnostics = _combined(members, compiled)
    form = arguments.format or ("json" if arguments.json else "text")
    tell(diagnostics, members[0], arguments, form=form)
    code = exit_code(diagnostics)
    if form == "text" and not arguments.quiet and code == EXIT_OK:
        print(f"{arguments.spec}: no mistake in the {len(members)} members of the sweep")
    return code


def plan(members: Sequence[Loaded], arguments: argparse.Namespace) -> int:
    """The members were shown side by side, and their plans written if a folder was named.

    A member that does not fit is a row like any other; the sweep is infeasible only if no member fits.
    """
    folder: Path | None = arguments.output
    if folder and folder.suffix == ".json":
        fail(f"`{arguments.spec}` is a sweep: -o takes a folder for its {len(members)} plans, or add --only NAME")
        return EXIT_INVALID
    compiled = [compile_spec(loaded, plan_folder=folder) for loaded in members]
    outcomes = [_outcome(loaded, each, arguments.runs) for loaded, each in zip(members, compiled, strict=True)]
    if arguments.json:
        print(json.dumps(sweep_to_json(outcomes), indent=2, ensure_ascii=False))
    else:
        tell([found for found in _combined(members, compiled) if not _is_row(found)], members[0], arguments)
        if not arguments.quiet:
            present_sweep(outcomes, console(arguments))
    if folder:
        written = _write(outcomes, folder)
        if not arguments.json and not arguments.quiet:
            print(f"wrote {written} of {len(members)} plans to {folder}; next: trainwright run {folder}/NAME.json")
    if any(exit_code(each.diagnostics) == EXIT_INVALID for each in compiled):
        return EXIT_INVALID
    if not any(outcome.plan for outcome in outcomes):
        return EXIT_INFEASIBLE
    work = any(verdict.action != "reuse" for outcome in outcomes for verdict in outcome.verdicts)
    return EXIT_WORK_TO_DO if arguments.detailed_exitcode and work else EXIT_OK


def _outcome(loaded: Loaded, compiled: Compiled, runs: Path) -> Outcome:
    from trainwright.compiler.review import review

    assert loaded.member is not None
    verdicts = review(compiled.plan, runs / compiled.plan.name) if compiled.plan else ()
    return Outcome(loaded.member, compiled.plan, verdicts, compiled.diagnostics)


def _write(outcomes: Sequence[Outcome], folder: Path) -> int:
    """A file for each member that has a plan; how many they are."""
    from trainwright.compiler.emit import emit

    folder.mkdir(parents=True, exist_ok=True)
    plans = [outcome.plan for outcome in outcomes if outcome.plan]
    for made in plans:
        (folder / f"{made.name}.json").write_bytes(emit(made))
    return len(plans)


def _combined(members: Sequence[Loaded], compiled: Sequence[Compiled]) -> list[Diagnostic]:
    names = [loaded.member.label for loaded in members if loaded.member]
    return combined([(name, each.diagnostics) for name, each in zip(names, compiled, strict=True)])


def _is_row(diagnostic: Diagnostic) -> bool:
    """Whether the table of members says it: that one does not fit is what a sweep is for."""
    return diagnostic.severity == "error" and CODES[diagnostic.code].infeasible
