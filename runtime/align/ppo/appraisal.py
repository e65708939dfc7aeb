"""What the reward model and the critic do, on the ranks that have them: in PPO's world, or in one of their own.

N: tokens of all answers, one answer after the other; R: answers.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from megatron.core import parallel_state
from torch import distributed

from trainwright.runtime.align.ppo.losses import ValueLoss, ValueTargets
from trainwright.runtime.align.ppo.models import Frozen, Learner
from trainwright.runtime.align.ppo.queries import mini_batches_of, passes
from trainwright.runtime.align.ppo.rollouts import Floats, Rollouts
from trainwright.runtime.align.ppo.rows import Packer, answered, read_all, read_scores
from trainwright.runtime.align.reward.framing import Framing
from trainwright.runtime.align.reward.scores import score
from trainwright.runtime.generate.share import shared_out
from trainwright.runtime.train import checkpoint, parallel
from trainwright.runtime.train.checkpoint import TrainState
from trainwright.runtime.train.summary import PhaseError
from trainwright.spec.plan import PpoStage

Task = Literal["scores", "values", "learn", "load", "save", "drop"]
Later = Callable[[], Any]  # waits for what was asked, and gives it


class Appraisers(Protocol):
    """Those who judge answers, here or elsewhere. Every rank of PPO's world asks, in the same order."""

    def ask(self, task: Task, *given: Any) -> Later: ...


class Appraisal:
    """The tasks. All but `ask` are collectives of the ranks that have the two models."""

    def __init__(self, stage: PpoStage, critic: Learner, reward: Frozen, framing: Framing, folder: Path) -> None:
        """`folder`: of the critic's checkpoints."""
        self._stage, self._critic, self._reward, self._framing = stage, critic, reward, framing
        self._folder = folder
        # A condition and the reward token come on top of the longest row of the other models.
        condition = max((len(turn) for turn in framing.conditions.values()), default=0)
        self._scored_length = stage.sequence_length + condition + 1
        self._packer = Packer((), stage.sequence_length, stage.critic_layout, stage.seed)

    def ask(self, task: Task, *given: Any) -> Later:
        """Here a task is done when its result is wanted."""
        return lambda: self.do(task, *given)

    def do(self, task: Task, *given: Any) -> Any:
        tasks: dict[Task, Callable[..., Any]] = {
            "scores": self.scores,
            "values": self.values,
            "learn": self.learn,
            "load": self.load,
            "save": self.save,
            "drop": self.drop,
        }
        return tasks[task](*given)

    def scores(self, rollouts: Rollouts) -> Floats:
        """scores_R, each answer under the condition of its query's domain."""
        whole = [
            self._framing.whole(query.domain, query.prompt, np.array(answer.tokens, dtype=np.int32))
            for query, answer in zip(rollouts.queries, rollouts.answers, strict=True)
        ]

        def some(numbers: Sequence[int]) -> list[float]:
            asked = [whole[number] for number in numbers]
            found: list[float] = score(chunks, asked, row_length=self._scored_length).tolist()
            return found

        chunks = self._reward.here()
        scores = shared_out(len(whole), some, parallel_state.get_data_parallel_group())
        return np.array(scores, dtype=np.float64)

    def values(self, rollouts: Rollouts, iteration: int) -> Floats:
        """values_N of the critic; what it learns next is about these answers."""
        stage = self._stage
        items = answered(rollouts, self._framing.begin)
        self._packer = Packer(items, stage.sequence_length, stage.critic_layout, stage.seed)
        parts = mini_batches_of(stage, len(items), iteration, epoch=0)
        rows = [row for answers in parts for row in self._packer.micro_batches(answers)]
        values_1N = read_all(self._critic.here(), read_scores, self._packer, rows)
        return values_1N.reshape(-1)

    def learn(self, answers: int, iteration: int, values_N: Floats, returns_N: Floats) -> dict[str, float]:
        """The critic has made its steps of the iteration, counted from 0; its metrics."""
        stage, packer = self._stage, self._packer
        loss = ValueLoss(ValueTargets.of(values_N, returns_N), stage.value_clip)
        total, norms = 0.0, []
        with self._critic.learning():
            for part in passes(stage, answers, iteration):
                (summed,), norm = self._critic.step(loss, packer.micro_batches(part), stage.critic_learning_rate)
                total += summed
                norms.append(norm)
        return {
            "ppo/value_loss": total / (packer.count * stage.epochs),
            "ppo/critic_grad_norm": sum(norms) / len(norms),
        }

    def load(self, name: str) -> TrainState:
        """The critic's state at its checkpoint of that name; later ones are gone. Raises PhaseError."""
        path = self._folder / name
        if not (path / checkpoint.COMPLETE_FILE).is_file():
            raise PhaseError(f"the actor's checkpoint {name} has none of the critic beside it in {path}")
        if distributed.get_rank() == 0:
            for other in self._folder.glob("iter_*"):  # of a save that was cut short, perhaps
                if other.name > name:
                    shutil.rmtree(other)
        parallel.barrier()
        with self._critic.learning():
            return checkpoint.load(path, self._critic.chunks, self._critic.optimizer)

    def save(self, state: TrainState) -> None:
        """The critic is saved, and one checkpoint more than is kept may be there."""
        keep = self._stage.checkpoint.keep + 1
        with self._critic.learning():
            checkpoint.save(self._folder, self._critic.chunks, self._critic.optimizer, state, keep)

    def drop(self) -> None:
        """No more checkpoints of the critic are there than are kept."""
        if distributed.get_rank() == 0:
            for old in sorted(self._folder.glob("iter_*"))[: -self._stage.checkpoint.keep]:
                shutil.rmtree(old)
        parallel.barrier()
