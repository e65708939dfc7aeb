"""A round of PPO, as a worker process sees it: start or continue, learn, leave checkpoints, metrics and rollouts.

Importable without Megatron-core; `train` installs what it needs on this machine first.

    <stage>/checkpoints/         the actor's
            critic/checkpoints/  the critic's
            rollouts.jsonl       every answer (trainwright.runtime.align.ppo.rollouts)
            probes.jsonl         the same queries answered at the start, early and late (..ppo.probes)
            metrics.jsonl        a row an iteration
"""

from collections.abc import Callable
from pathlib import Path

from trainwright.runtime.data.vocabulary import Vocabulary
from trainwright.runtime.train.summary import PhaseError, PhaseSummary
from trainwright.spec.plan import Estimate, PpoStage


def train(
    stage: PpoStage,
    *,
    estimate: Estimate | None,
    inputs: dict[str, Path],
    vocabulary: Vocabulary,
    root: Path,
    out: Path,
    run_folder: Path,
    should_stop: Callable[[], bool],
) -> PhaseSummary:
    """The round is done, or saved and `interrupted` after `should_stop` on any rank.

    `inputs`: the folders of the stages it needs, by name; `root`: where the plan's paths begin; `estimate` says how
    many answers the memory allows to be drawn at once. Every process of the layout calls it. Raises PhaseError,
    DataError, UnsupportedLayoutError.
    """
    from trainwright.runtime import host

    host.install()
    from trainwright.runtime.align.ppo.loop import run
    from trainwright.runtime.train import parallel

    if stage.placement_kind == "split":
        raise PhaseError('`placement = "split"` is not built yet: take `colocated`')
    parallel.initialize(stage.layout, seed=stage.seed)
    summary = run(
        stage,
        waves=_waves(estimate),
        inputs=inputs,
        vocabulary=vocabulary,
        root=root,
        out=out,
        run_folder=run_folder,
        should_stop=should_stop,
    )
    # Only now: after an error the others may be waiting in a collective, and the process had better end.
    parallel.finalize()
    return summary


def _waves(estimate: Estimate | None) -> int:
    """In how many turns a rank draws its answers, as planned."""
    chosen = [iteration.waves for iteration in (estimate.iterations if estimate else ()) if iteration.chosen]
    return max(chosen, default=1)
