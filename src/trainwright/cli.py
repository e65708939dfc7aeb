"""The command line: what can be said. What each verb does stands in `verbs_compile.py` and `verbs_run.py`."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from trainwright import __version__

EXIT_CODES = """exit codes: 0 success, 1 failure while running, 2 bad usage or an invalid spec, 3 valid but infeasible,
4 stale plan or held lock, 5 a quality gate said no, 10 plan --detailed-exitcode: there is work to do,
75 interrupted with a saved checkpoint, 130/143 interrupted without one"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the process's exit code."""
    arguments = _parser().parse_args(argv)
    if os.environ.get("NO_COLOR"):
        arguments.color = False
    module, function = arguments.verb.split(":")
    try:
        # A verb's module is imported when the verb is called: `check` must not wait for torch.
        code: int = getattr(import_module(f"trainwright.{module}"), function)(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader (`| head`) has gone; what is left in the buffer has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trainwright",
        description="Compile one TOML spec into a checked training plan, and execute it.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"trainwright {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="machine-readable output on stdout, and nothing else there")
    common.add_argument(
        "--no-color", dest="color", action="store_false", default=None, help="plain text (also NO_COLOR)"
    )
    common.add_argument("-q", "--quiet", action="store_true", help="only errors and the result")
    common.add_argument("-v", "--verbose", action="store_true", help="with all assumptions and notes")

    settable = argparse.ArgumentParser(add_help=False)
    settable.add_argument("-s", "--set", dest="sets", metavar="A.B=VALUE", action="append", default=[],
                          help="override one value; VALUE is TOML, else a string")  # fmt: skip
    settable.add_argument(
        "--runs", type=Path, default=Path("runs"), metavar="DIR", help="where runs live (default: runs)"
    )
    settable.add_argument("--only", metavar="MEMBER", help="one member of a sweep, by its name or index")

    looking = argparse.ArgumentParser(add_help=False)
    looking.add_argument("--stage", metavar="NAME", help="one stage in depth: its layout, memory, time, schedule")
    looking.add_argument("--html", type=Path, metavar="FILE", help="write the plan as a page that opens offline")
    looking.add_argument("--trace", type=Path, metavar="FILE",
                         help="write each phase's step as a trace for chrome://tracing or Perfetto")  # fmt: skip

    def verb(name: str, target: str, text: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, parents=[common, *parents], help=text, description=text)
        made.set_defaults(verb=target)
        return made

    init = verb("init", "verbs_compile:init", "write a commented starter spec")
    init.add_argument("name", nargs="?", default="my-run")
    init.add_argument("--preset", default="tiny", help="the model to start from (default: tiny)")
    init.add_argument("--full", action="store_true", help="with every other key of the language as a comment")

    check = verb("check", "verbs_compile:check", "tell every mistake of a spec", settable)
    check.add_argument("spec", type=Path)
    check.add_argument("--format", choices=("text", "json", "github"), default=None, help="how mistakes are written")

    show = verb(
        "show", "verbs_compile:show", "the resolved spec, each value with its origin; or a plan", settable, looking
    )
    show.add_argument("file", type=Path, metavar="SPEC_or_PLAN")

    graph = verb("graph", "verbs_compile:graph", "the stage graph", settable)
    graph.add_argument("spec", type=Path, metavar="SPEC_or_PLAN")
    graph.add_argument("--format", choices=("text", "dot", "mermaid", "json"), default="text")

    plan = verb("plan", "verbs_compile:plan", "what would run, on what, how long, and why", settable, looking)
    plan.add_argument("spec", type=Path)
    plan.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the plan here")
    plan.add_argument("--detailed-exitcode", action="store_true", help="10 if there is work to do")
    plan.add_argument("--search", action="store_true", help="compare the layouts that the spec could have")
    plan.add_argument("--objective", choices=("time", "cost", "gpus"),
                      help="of --search: the fastest (default), the cheapest, the fewest nodes")  # fmt: skip
    plan.add_argument("--top", type=int, metavar="N", help="of --search: how many layouts a phase (default: 5)")
    plan.add_argument("--all", action="store_true", help="of --search: also layouts that `run` cannot execute yet")
    plan.add_argument("--trace-memory", action="store_true",
                      help="count what the real training step allocates (needs [train], not a GPU)")  # fmt: skip
    plan.add_argument("--rank", type=int, metavar="R", help="trace this rank only (default: one of each pipeline rank)")

    diff = verb(
        "diff",
        "verbs_compile:diff",
        "what differs between two specs or plans, what that makes stale and what it costs",
        settable,
    )
    diff.add_argument("old", type=Path, metavar="OLD", help="a spec, a plan or a run's folder")
    diff.add_argument("new", type=Path, metavar="NEW")

    explain = verb("explain", "verbs_compile:explain", "the page of one diagnostic")
    explain.add_argument("code", nargs="?", help="such as TW101; all codes if absent")

    schema = verb("schema", "verbs_compile:schema", "a published JSON schema")
    schema.add_argument("--of", choices=("spec", "plan", "diagnostics"), default="spec")
    schema.add_argument("--field", metavar="A.B", help="only this part of the spec's schema")

    run = verb("run", "verbs_run:run", "execute a plan, or plan a spec and execute it, here", settable)
    run.add_argument("file", type=Path, metavar="PLAN_or_SPEC")
    run.set_defaults(stage=None, html=None)
    run.add_argument("-y", "--yes", action="store_true", help="do not ask before running")

    resume = verb("resume", "verbs_run:resume", "go on with a run where it stopped")
    resume.add_argument("run", type=Path, metavar="RUN", help="runs/NAME")

    cancel = verb("cancel", "verbs_run:cancel", "ask a run to save a checkpoint and end")
    cancel.add_argument("run", type=Path, metavar="RUN")

    status = verb("status", "verbs_run:status", "what a run has done and is doing")
    status.add_argument("run", type=Path, metavar="RUN")

    report = verb("report", "verbs_run:report", "write report.html: planned beside measured, losses, samples")
    report.add_argument("run", type=Path, metavar="RUN")

    sample = verb("sample", "verbs_run:sample", "let a trained model go on with a prompt")
    sample.add_argument("run", type=Path, metavar="RUN")
    sample.add_argument("prompt", nargs="*", help="read from standard input if absent")
    sample.add_argument("--stage", help="which phase's model (default: the last one trained)")
    sample.add_argument("--max-tokens", type=int, default=128)
    sample.add_argument("--temperature", type=float, default=0.8, help="0 is greedy")
    sample.add_argument("--top-p", type=float, default=0.9)
    sample.add_argument("--seed", type=int, default=0)

    calibrate = verb("calibrate", "verbs_calibrate:calibrate", "measure this machine, and write a hardware file of it")
    calibrate.add_argument("-o", "--output", type=Path, metavar="FILE", default=Path("hardware/local.toml"),
                           help="the file (default: hardware/local.toml, found by `gpu = \"local\"`)")  # fmt: skip
    calibrate.add_argument("--quick", action="store_true", help="fewer sizes: under 20 seconds")
    calibrate.add_argument("--from", dest="run", type=Path, metavar="RUN",
                           help="improve the file by what this run's steps took, in place of measuring")  # fmt: skip
    calibrate.add_argument("-y", "--yes", action="store_true", help="write over an existing file without asking")

    kernels = verbs.add_parser("kernels", help="try, measure and compile our own kernels")
    actions = kernels.add_subparsers(metavar="ACTION", required=True)

    def action(name: str, target: str, text: str) -> argparse.ArgumentParser:
        made = actions.add_parser(name, parents=[common], help=text, description=text)
        made.set_defaults(verb=target)
        return made

    validate = action(
        "validate", "verbs_kernels:validate", "try every configuration on this GPU, record the right ones"
    )
    validate.add_argument("--quick", action="store_true", help="the usual dtypes and head sizes, no large packs")
    bench = action("bench", "verbs_kernels:bench", "our kernels beside others on this GPU")
    bench.add_argument("--op", choices=("attention", "fused", "all"), default="all")
    bench.add_argument("-o", "--output", type=Path, metavar="FILE",
                       help="the results (default on a GPU: bench/results/CHIP/DATE-kernels-OP.json)")  # fmt: skip
    action("compile-check", "verbs_kernels:compile_check", "compile every configuration for sm_90, without a GPU")

    verb("doctor", "verbs_run:doctor", "this machine: devices, kernels, versions")
    return parser
