"""Checkpoints of actor and critic, of the same iteration: complete only together.

The actor's lie in `checkpoints/`, where evaluation, export and later stages look for a model; the critic's in
`critic/checkpoints/`. The critic is saved first and loses its older ones last, so where there is a complete checkpoint
of the actor there is one of the critic beside it, whatever died in between.
"""

import time
from pathlib import Path

from torch import distributed

from trainwright.runtime.align.ppo.appraisal import Appraisers
from trainwright.runtime.align.ppo.models import Learner
from trainwright.runtime.events import EventLog
from trainwright.runtime.train import checkpoint
from trainwright.runtime.train.checkpoint import TrainState
from trainwright.runtime.train.loop import companions
from trainwright.spec.artefact import CHECKPOINTS
from trainwright.spec.plan import PpoStage


class Saver:
    """When a round of PPO is saved, and what it goes on from."""

    def __init__(
        self, stage: PpoStage, actor: Learner, appraisers: Appraisers, out: Path, run_folder: Path, events: EventLog
    ) -> None:
        self._stage, self._actor, self._appraisers, self._events = stage, actor, appraisers, events
        self._folder = out / CHECKPOINTS
        self._companions = companions(run_folder)
        self._saved_at = time.monotonic()
        self.newest: Path | None = checkpoint.latest(self._folder)

    def load(self) -> tuple[TrainState, TrainState] | None:
        """The states of actor and critic that the models now stand at; None if nothing was saved. A collective.

        Raises PhaseError.
        """
        if self.newest is None:
            return None
        critic: TrainState = self._appraisers.ask("load", self.newest.name)()
        with self._actor.learning():
            return checkpoint.load(self.newest, self._actor.chunks, self._actor.optimizer), critic

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
        self._appraisers.ask("save", critic)()
        keep = self._stage.checkpoint.keep
        with self._actor.learning():
            self.newest = checkpoint.save(
                self._folder, self._actor.chunks, self._actor.optimizer, actor, keep, self._companions
            )
        self._appraisers.ask("drop")()
        self._saved_at = time.monotonic()
        if distributed.get_rank() == 0:
            took_ms = round((self._saved_at - began) * 1e3, 1)
            self._events.write("checkpoint_saved", stage=self._stage.name, step=actor.step, dur_ms=took_ms)
