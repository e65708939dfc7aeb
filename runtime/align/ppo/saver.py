"""Checkpoints of actor and critic, of the same iteration: complete only together.

The actor's lie in `checkpoints/`, where evaluation, export and later stages look for a model; the critic's in
`critic/checkpoints/`. The critic is saved first and loses its older ones last, so where there is a complete checkpoint
of the actor there is one of the critic beside it, whatever died in between.
"""

import shutil
import time
from pathlib import Path

from torch import distributed

from trainwright.runtime.align.ppo.models import CRITIC, Models
from trainwright.runtime.events import EventLog
from trainwright.runtime.train import checkpoint, parallel
from trainwright.runtime.train.checkpoint import TrainState
from trainwright.runtime.train.loop import companions
from trainwright.runtime.train.summary import PhaseError
from trainwright.spec.artefact import CHECKPOINTS
from trainwright.spec.plan import PpoStage


class Saver:
    """When a round of PPO is saved, and what it goes on from."""

    def __init__(self, stage: PpoStage, models: Models, out: Path, run_folder: Path, events: EventLog) -> None:
        self._stage, self._models, self._events = stage, models, events
        self._actors, self._critics = out / CHECKPOINTS, out / CRITIC / CHECKPOINTS
        self._companions = companions(run_folder)
        self._saved_at = time.monotonic()
        self.newest: Path | None = checkpoint.latest(self._actors)

    def load(self) -> tuple[TrainState, TrainState] | None:
        """The states of actor and critic that the models now stand at; None if nothing was saved. A collective.

        Raises PhaseError.
        """
        if self.newest is None:
            return None
        critic = self._critics / self.newest.name
        if not (critic / checkpoint.COMPLETE_FILE).is_file():
            raise PhaseError(f"the actor's checkpoint {self.newest.name} has none of the critic beside it in {critic}")
        if distributed.get_rank() == 0:
            for other in self._critics.glob("iter_*"):  # of a save that was cut short, perhaps
                if other.name > critic.name:
                    shutil.rmtree(other)
        parallel.barrier()
        models = self._models
        with models.actor.learning():
            actor_state = checkpoint.load(self.newest, models.actor.chunks, models.actor.optimizer)
        with models.critic.learning():
            return actor_state, checkpoint.load(critic, models.critic.chunks, models.critic.optimizer)

    def is_time(self) -> bool:
        """Whether this rank's clock says so; only rank 0's is asked, for clocks differ."""
        every = self._stage.checkpoint.every_seconds
        return every is not None and distributed.get_rank() == 0 and time.monotonic() - self._saved_at >= every

    def is_step(self, iteration: int) -> bool:
        every = self._stage.checkpoint.every_steps
        return iteration == self._stage.steps or (every is not None and iteration % every == 0)

    def is_saved(self, iteration: int) -> bool:
        return iteration == 0 or (self.newest is not None and self.newest.name == f"iter_{iteration:07d}")

    def save(self, actor: TrainState, critic: TrainState) -> None:
        """Both are complete. A collective."""
        began = time.monotonic()
        models, keep = self._models, self._stage.checkpoint.keep
        with models.critic.learning():
            checkpoint.save(self._critics, models.critic.chunks, models.critic.optimizer, critic, keep + 1)
        with models.actor.learning():
            self.newest = checkpoint.save(
                self._actors, models.actor.chunks, models.actor.optimizer, actor, keep, self._companions
            )
        if distributed.get_rank() == 0:
            for old in sorted(self._critics.glob("iter_*"))[:-keep]:
                shutil.rmtree(old)
            took_ms = round((time.monotonic() - began) * 1e3, 1)
            self._events.write("checkpoint_saved", stage=self._stage.name, step=actor.step, dur_ms=took_ms)
        parallel.barrier()
        self._saved_at = time.monotonic()
