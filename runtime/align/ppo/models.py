"""The four models of PPO: the actor and the critic learn, the reference and the reward model only answer.

With `offload` the device has the weights of the model that works and nothing of the others; gradients and the
optimizer's state of one that learns, while it does. On a CPU the host's memory is all there is, and nothing moves.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from megatron.core.models.gpt import GPTModel
from msgspec import structs

from trainwright.runtime import host
from trainwright.runtime.align.ppo.resident import Room, Shelf
from trainwright.runtime.train import checkpoint, optimizer_state
from trainwright.runtime.train.model import Head, model_of
from trainwright.runtime.train.objective import Loss, Shaped
from trainwright.runtime.train.optimizer import build_optimizer, set_learning_rate, wrap
from trainwright.runtime.train.step import over_all_ranks, train_step
from trainwright.runtime.train.summary import PhaseError
from trainwright.spec.artefact import CHECKPOINTS
from trainwright.spec.plan import Layout, PpoStage

CRITIC = "critic"  # the folder of its checkpoints, beside the actor's


class Frozen:
    """A model that only answers."""

    def __init__(self, chunks: list[GPTModel], room: Room) -> None:
        self._chunks, self._room = chunks, room
        for chunk in chunks:
            chunk.requires_grad_(False)
        self._weights = Shelf(lambda: (p for chunk in chunks for p in chunk.parameters()), "constant")
        if room.moves:
            self._weights.put_away()

    def here(self) -> list[GPTModel]:
        """Its chunks, on the device until another model is asked for."""
        self._room.enter(self._weights)
        return self._chunks


class Learner:
    """A model with its optimizer."""

    def __init__(self, chunks: list[GPTModel], stage: PpoStage, layout: Layout, room: Room) -> None:
        self.chunks, self._room = chunks, room
        self._wrapped = wrap(chunks, layout)
        self.optimizer = build_optimizer(self._wrapped, stage.optimizer, layout, stage.precision)
        self._weights = Shelf(lambda: (p for chunk in chunks for p in chunk.parameters()), "changing")
        self._learning = (
            Shelf(lambda: optimizer_state.tensors(self.optimizer), "changing"),
            Shelf(lambda: (b.grad_data for chunk in self._wrapped for b in chunk.buffers), "scratch"),
        )
        if room.moves:
            for shelf in (self._weights, *self._learning):
                shelf.put_away()

    def here(self) -> list[GPTModel]:
        """Its chunks, on the device until another model is asked for."""
        self._room.enter(self._weights)
        return self.chunks

    @contextmanager
    def learning(self) -> Iterator[None]:
        """Inside the block the optimizer's state and the gradients are there too: to learn, to save and to load."""
        self._room.enter(self._weights)
        if self._room.moves:
            for shelf in self._learning:
                shelf.bring()
        yield
        if self._room.moves:
            for shelf in self._learning:
                shelf.put_away()

    def step(self, loss: Loss, micro_batches: Sequence[Shaped], rate: float) -> tuple[list[float], float]:
        """One optimizer step; the loss's figures over all ranks, and the gradient's norm."""
        set_learning_rate(self.optimizer, rate)
        figures, norm = train_step(self._wrapped, self.optimizer, loss, micro_batches)
        return over_all_ranks(figures).tolist(), norm


def build_actor(stage: PpoStage, inputs: dict[str, Path], room: Room) -> tuple[Learner, Frozen]:
    """The actor as the round begins, and the reference. `inputs`: the folders of the results that the stage needs.

    Raises PhaseError.
    """
    assert stage.start_from is not None, "PPO starts from a model"
    reference = Frozen(_loaded(stage, stage.layout, "language", inputs, stage.reference_from), room)
    chunks = _loaded(stage, stage.layout, "language", inputs, stage.start_from)
    return Learner(chunks, stage, stage.layout, room), reference


def build_critic(stage: PpoStage, inputs: dict[str, Path], room: Room) -> tuple[Learner, Frozen]:
    """The critic as the round begins, and the reward model. Raises PhaseError."""
    layout = stage.critic_layout
    reward = Frozen(_loaded(stage, layout, "score", inputs, stage.reward_from), room)
    chunks = _build(stage, layout, "score", seed=stage.seed)
    if stage.critic_from is not None:
        checkpoint.load_weights(chunks, _newest(inputs[stage.critic_from] / CRITIC, stage.critic_from))
    else:
        checkpoint.load_weights(chunks, _newest(inputs[stage.reward_from], stage.reward_from), head=False)
    return Learner(chunks, stage, layout, room), reward


def _loaded(stage: PpoStage, layout: Layout, head: Head, inputs: dict[str, Path], name: str) -> list[GPTModel]:
    chunks = _build(stage, layout, head, seed=None)
    checkpoint.load_weights(chunks, _newest(inputs[name], name))
    return chunks


def _build(stage: PpoStage, layout: Layout, head: Head, *, seed: int | None) -> list[GPTModel]:
    return model_of(structs.replace(stage, layout=layout), seed=seed, head=head)


def _newest(folder: Path, stage: str) -> Path:
    found = checkpoint.latest(folder / CHECKPOINTS)
    if found is None:
        raise PhaseError(f"stage `{stage}` left no complete checkpoint in {folder / CHECKPOINTS}")
    return found


def has_host_apart() -> bool:
    """Whether the host's memory is another one than the device's."""
    return host.device().type == "cuda"
