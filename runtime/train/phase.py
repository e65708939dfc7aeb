"""A pre-training phase, as a worker process sees it: start or continue, train, leave checkpoints and metrics.

Importable without Megatron-core; `train` installs what it needs on this machine first.
"""

from collections.abc import Callable
from pathlib import Path

from trainwright.runtime.train.summary import PhaseSummary
from trainwright.spec.plan import Estimate, PhaseStage


def train(
    stage: PhaseStage,
    *,
    estimate: Estimate | None,
    data: Path,
    start: Path | None,
    out: Path,
    run_folder: Path,
    should_stop: Callable[[], bool],
) -> PhaseSummary:
    """The phase is trained to its end, or saved and `interrupted` after `should_stop` on any rank.

    Every process of the layout calls it. Continues from the newest checkpoint in `out`; else from the weights and the
    optimizer state of the newest one in `start`, the folder of an earlier phase's result; else from the seed.
    `data` is the folder of the tokenize stage; what is measured is compared with `estimate`. Processes meet as
    torchrun's environment says, unless torch.distributed is initialised already.
    Raises PhaseError, UnsupportedLayoutError.
    """
    from trainwright.runtime import host

    host.install()
    from trainwright.runtime.data.batches import Batches
    from trainwright.runtime.train import parallel
    from trainwright.runtime.train.language import LanguageObjective
    from trainwright.runtime.train.loop import run

    parallel.initialize(stage.layout, seed=stage.seed)
    batches = Batches(stage, data)
    objective = LanguageObjective(batches, batches.names, stage.layout)
    summary = run(
        stage, objective, estimate=estimate, start=start, out=out, run_folder=run_folder, should_stop=should_stop
    )
    # Only now: after an error the others may be waiting in a collective, and the process had better end.
    parallel.finalize()
    return summary
