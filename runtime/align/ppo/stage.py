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
from typing import TYPE_CHECKING, Any

from trainwright.runtime.data.vocabulary import Vocabulary
from trainwright.runtime.train.summary import PhaseSummary
from trainwright.spec.artefact import CHECKPOINTS
from trainwright.spec.plan import Estimate, PpoStage

if TYPE_CHECKING:
    from trainwright.runtime.align.ppo.split import Place


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
    place: "Place | None" = None,
) -> PhaseSummary:
    """The round is done, or saved and `interrupted` after `should_stop` on any rank.

    `inputs`: the folders of the stages it needs, by name; `root`: where the plan's paths begin; `estimate` says how
    many answers the memory allows to be drawn at once; `place` is where this process stands in a launch of a `split`
    stage, as torchrun says if absent. Every process of the layout calls it. Raises PhaseError,
    DataError, UnsupportedLayoutError.
    """
    from trainwright.runtime import host

    host.install()
    from trainwright.runtime.align.ppo import models, split
    from trainwright.runtime.align.ppo.appraisal import Appraisal
    from trainwright.runtime.align.ppo.loop import run
    from trainwright.runtime.align.ppo.resident import Room
    from trainwright.runtime.align.reward.framing import Framing
    from trainwright.runtime.train import parallel

    room = Room(moves=stage.offload and models.has_host_apart())

    def appraisal() -> Appraisal:
        critic, reward = models.build_critic(stage, inputs, room)
        framing = Framing.of(stage.conditions, root, vocabulary)
        return Appraisal(stage, critic, reward, framing, out / models.CRITIC / CHECKPOINTS)

    attempt: dict[str, Any] = {
        "waves": _waves(estimate),
        "inputs": inputs,
        "vocabulary": vocabulary,
        "out": out,
        "run_folder": run_folder,
        "should_stop": should_stop,
        "room": room,
    }
    summary: PhaseSummary
    if stage.placement_kind == "colocated":
        parallel.initialize(stage.layout, seed=stage.seed)
        summary = run(stage, appraisers=appraisal(), **attempt)
    else:
        place = place or split.Place.of_launch()
        if split.join(stage, place):
            elsewhere = split.Elsewhere(place.store)
            summary = run(stage, appraisers=elsewhere, **attempt)
            elsewhere.dismiss(summary)
        else:
            summary = split.serve(appraisal(), place.store)
    # Only now: after an error the others may be waiting in a collective, and the process had better end.
    parallel.finalize()
    return summary


def _waves(estimate: Estimate | None) -> int:
    """In how many turns a rank draws its answers, as planned."""
    chosen = [iteration.waves for iteration in (estimate.iterations if estimate else ()) if iteration.chosen]
    return max(chosen, default=1)
