"""Starts the workers of one stage on this machine through torchrun's API: one call for one process or many."""

import logging
import os
import sys
import uuid
from pathlib import Path

from trainwright.spec.plan import Plan, TrainingStage


class WorkersFailed(Exception):
    """At least one worker ended with an error. `exit_code` is that of the first to fail, `rank` its rank."""

    def __init__(self, rank: int, exit_code: int) -> None:
        super().__init__(f"worker {rank} ended with exit code {exit_code}")
        self.rank = rank
        self.exit_code = exit_code


def run_workers(plan: Plan, plan_file: Path, stage: str, run_folder: Path, processes: int) -> None:
    """All workers of the stage ended well. Raises WorkersFailed with the true exit code otherwise.

    SIGTERM and SIGINT are left to the caller, who asks the workers to save and end through the run's stop file.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # A failed worker has said why in the run's event file; the launcher's own account adds noise, not facts.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        signals_to_handle="SIGQUIT",
    )
    command = ["-m", "trainwright.runtime.worker", str(plan_file), stage, str(run_folder)]
    own = dict(os.environ)  # other programs that this process starts are not workers
    os.environ.update(_environment(plan, stage, processes))
    try:
        elastic_launch(config, sys.executable)(*command)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        raise WorkersFailed(rank, failure.exitcode) from None
    except SignalException as error:
        raise KeyboardInterrupt from error
    finally:
        os.environ.clear()
        os.environ.update(own)


def _environment(plan: Plan, stage: str, processes: int) -> dict[str, str]:
    """What workers find in theirs."""
    # Workers import nothing from the folder the user happens to stand in.
    environment = {"PYTHONSAFEPATH": "1"}
    if plan.hardware.device == "cpu":
        interpreted = _is_interpreted(plan, stage)
        # Triton reads it once, while it is imported.
        environment["TRITON_INTERPRET"] = "1" if interpreted else "0"
        # The interpreter's many small products on a team of threads would wait for each other.
        threads = 1 if interpreted else max(1, len(os.sched_getaffinity(0)) // processes)
        environment["OMP_NUM_THREADS"] = environment["OPENBLAS_NUM_THREADS"] = str(threads)
        # The profiler of a step's memory warns of blocks that are older than itself: it counts what is new.
        environment["TORCH_CPP_LOG_LEVEL"] = os.environ.get("TORCH_CPP_LOG_LEVEL", "ERROR")
    return environment


def _is_interpreted(plan: Plan, stage: str) -> bool:
    """Whether the stage trains on a CPU with kernels that are written for GPUs."""
    trained = plan.stage(stage)
    return isinstance(trained, TrainingStage) and trained.attention == "portable"
