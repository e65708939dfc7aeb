"""A pre-training phase, as a worker process sees it: start or continue, train, leave checkpoints and metrics.

Importable without Megatron-core; `train` installs what it needs on this machine first.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trainwright.spec.plan import PhaseStage


class PhaseError(Exception):
    """The phase cannot start or go on; the text is one sentence for the user."""


@dataclass(frozen=True, kw_only=True)
class PhaseSummary:
    """What one attempt at a phase came to; the same on every rank."""

    step: int  # optimizer steps of the phase that are done
    steps: int
    interrupted: bool
    continued_from: int | None  # the step whose checkpoint it went on from
    loss: float | None  # of the last step; None if there was none to do
    consumed_tokens: int
    parameters: int
    tokens_per_s: float | None  # over the steps of this attempt, all ranks together
    checkpoint: str | None  # relative to the stage's folder

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def train(
    stage: PhaseStage,
    *,
    data: Path,
    start: Path | None,
    out: Path,
    run_folder: Path,
    should_stop: Callable[[], bool],
) -> PhaseSummary:
    """The phase is trained to its end, or saved and `interrupted` after `should_stop` on any rank.

    Every process of the layout calls it. Continues from the newest checkpoint in `out`; else from the weights and the
    optimizer state of the newest one in `start`, the folder of an earlier phase's result; else from the seed.
    `data` is the folder of the tokenize stage. Processes meet as torchrun's environment says, unless
    torch.distributed is initialised already. Raises PhaseError, UnsupportedLayoutError.
    """
    from trainwright.runtime import host

    host.install()
    from trainwright.runtime.data.batches import Batches
    from trainwright.runtime.train import parallel
    from trainwright.runtime.train.loop import run

    parallel.initialize(stage.layout, seed=stage.seed)
    try:
        return run(stage, Batches(stage, data), start=start, out=out, run_folder=run_folder, should_stop=should_stop)
    finally:
        parallel.finalize()
