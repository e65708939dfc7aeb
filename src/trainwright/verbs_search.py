"""`plan --search`: the layouts that a spec could have, compared; or the sizes of its cluster."""

import argparse
import json
import os
from collections.abc import Sequence

from trainwright.compiler.pipeline import Compiled, compile_spec, questions_of
from trainwright.compiler.search.question import Request
from trainwright.compiler.search.result import ClusterTried
from trainwright.spec.load import Loaded, load
from trainwright.verbs_compile import (
    EXIT_FAILED,
    EXIT_INFEASIBLE,
    EXIT_INVALID,
    console,
    exit_code,
    fail,
    html_written,
    tell,
    write_plan,
)


def plan_search(arguments: argparse.Namespace) -> int:
    """The best layouts were shown, with why the others lose, and the plan that has them was written if asked for."""
    if arguments.stage or arguments.trace_memory or arguments.detailed_exitcode:
        fail("`--search` compares layouts: to look into the plan of one, write it with -o and `plan` or `show` it")
        return EXIT_INVALID
    request = Request(arguments.objective or "time", arguments.top or Request.top, arguments.all)
    loaded = _load(arguments)
    if request.objective == "gpus" and loaded.spec is not None and loaded.spec.budget.deadline is None:
        fail("the fewest GPUs by when? state `deadline` in `[budget]`")
        return EXIT_INVALID
    tried: list[ClusterTried] = []
    if request.objective == "time":
        compiled = _compile(loaded, arguments, request)
    else:
        sized, tried = _best_cluster(loaded, arguments, request)
        if sized is None and tried:
            fail(f"no cluster of up to {tried[-1].nodes:,} nodes ends within the budget")
            return EXIT_INFEASIBLE
        loaded, compiled = sized or (loaded, _compile(loaded, arguments, request))
    tell(compiled.diagnostics, loaded, arguments)
    _show(loaded, compiled, tried, arguments)
    if compiled.plan is not None:
        write_plan(compiled.plan, arguments)
        if not html_written(compiled.plan, arguments):
            return EXIT_FAILED
    return exit_code(compiled.diagnostics)


def _best_cluster(
    loaded: Loaded, arguments: argparse.Namespace, request: Request
) -> tuple[tuple[Loaded, Compiled] | None, list[ClusterTried]]:
    """The spec on the size of cluster that serves the objective; and the sizes looked at, none if it has mistakes."""
    from trainwright.compiler.search.clusters import try_clusters

    asked = questions_of(loaded, request)
    if asked is None or loaded.spec is None or asked[1].peak(loaded.spec.run.precision) is None:
        return None, []
    deadline_s = loaded.spec.budget.deadline or float("inf")
    tried = []
    for each in try_clusters(*asked):
        tried.append(each)
        # The quick figure counts no failures: the plan's own decides.
        if request.objective == "gpus" and _in_time(each, deadline_s):
            sized = _sized(arguments, request, each.nodes)
            if sized[1].plan is not None:
                return sized, tried
    if request.objective == "cost":
        in_time = [each for each in tried if _in_time(each, deadline_s)]
        for each in sorted(in_time, key=lambda each: (each.gpu_hours or 0.0, each.nodes)):
            sized = _sized(arguments, request, each.nodes)
            if sized[1].plan is not None:
                return sized, tried
    return None, tried


def _in_time(tried: ClusterTried, deadline_s: float) -> bool:
    return tried.duration_s is not None and tried.duration_s <= deadline_s


def _sized(arguments: argparse.Namespace, request: Request, nodes: int) -> tuple[Loaded, Compiled]:
    loaded = _load(arguments, (f"cluster.nodes={nodes}",))
    return loaded, _compile(loaded, arguments, request)


def _load(arguments: argparse.Namespace, more: Sequence[str] = ()) -> Loaded:
    return load(arguments.spec, (*arguments.sets, *more), os.environ, arguments.only)


def _compile(loaded: Loaded, arguments: argparse.Namespace, request: Request) -> Compiled:
    folder = arguments.output.parent if arguments.output else None
    return compile_spec(loaded, plan_folder=folder, request=request)


def _show(loaded: Loaded, compiled: Compiled, tried: list[ClusterTried], arguments: argparse.Namespace) -> None:
    if compiled.search is None or loaded.spec is None:
        return
    from trainwright.compiler.present.search import print_clusters, print_search, search_to_json

    nodes = loaded.spec.cluster.nodes
    if arguments.json:
        print(json.dumps(search_to_json(compiled.search, tried, nodes), indent=2, ensure_ascii=False))
    elif not arguments.quiet:
        out = console(arguments)
        if tried:
            print_clusters(tried, nodes, out)
        print_search(compiled.search, nodes if tried else None, out)
