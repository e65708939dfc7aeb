"""`plan --trace-memory`: the plan's memory beside what the runtime's own code allocates."""

import argparse
import json

from trainwright.spec.plan import PhaseStage, Plan
from trainwright.spec.traced import TraceJob
from trainwright.verbs_compile import EXIT_INVALID, EXIT_OK, console, fail

EXIT_FAILED = 1


def trace_memory(plan: Plan, arguments: argparse.Namespace) -> int:
    """Planned and traced memory of each phase stand on stdout: of one rank, or of the fullest of each pipeline rank."""
    from trainwright.compiler.present.traced import present_traced, traced_to_json
    from trainwright.runtime.trace.trace import TraceError, fullest_ranks, trace

    phases = [stage for stage in plan.stages if isinstance(stage, PhaseStage)]
    phases = [phase for phase in phases if arguments.stage in (None, phase.name)]
    if not phases:
        fail(f"`{arguments.stage}` is no training phase: memory is traced of those")
        return EXIT_INVALID
    rank = arguments.rank
    for phase in phases:
        if rank is not None and not 0 <= rank < phase.layout.world_size:
            fail(f"there is no rank {rank} in `{phase.name}`: it has {phase.layout.world_size}, counted from 0")
            return EXIT_INVALID
    estimates = {estimate.stage: estimate for estimate in plan.estimates}
    documents = []
    for phase in phases:
        ranks = fullest_ranks(phase.layout) if rank is None else [rank]
        jobs = [TraceJob(stage=phase, rank=each, device=plan.hardware.device) for each in ranks]
        try:
            traced = list(trace(jobs))
        except TraceError as error:
            fail(str(error))
            return EXIT_FAILED
        if arguments.json:
            documents.append(traced_to_json(estimates[phase.name], traced))
        else:
            present_traced(estimates[phase.name], traced, console(arguments))
    if arguments.json:
        print(json.dumps(documents, indent=2))
    return EXIT_OK
