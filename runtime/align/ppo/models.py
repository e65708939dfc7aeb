"""The four models of PPO: the actor and the critic learn, the reference and the reward model only answer.

With `offload`, what a moment does not need lies in the host's memory meanwhile: the weights of the two frozen models,
and the states of both optimizers. On a CPU the host's memory is all there is, and nothing moves.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from megatron.core.models.gpt import GPTModel
from torch import Tensor

from trainwright.runtime import host
from trainwright.runtime.train import checkpoint, optimizer_state
from trainwright.runtime.train.model import build_model
from trainwright.runtime.train.objective import Loss, Shaped
from trainwright.runtime.train.optimizer import build_optimizer, set_learning_rate, wrap
from trainwright.runtime.train.step import over_all_ranks, train_step
from trainwright.runtime.train.summary import PhaseError
from trainwright.spec.artefact import CHECKPOINTS
from trainwright.spec.plan import Layout, PpoStage

Head = Literal["language", "score"]
CRITIC = "critic"  # the folder of its checkpoints, beside the actor's


class Frozen:
    """A model that only answers."""

    def __init__(self, chunks: list[GPTModel], *, offload: bool) -> None:
        self._chunks = chunks
        for chunk in chunks:
            chunk.requires_grad_(False)
        moves = offload and has_host_apart()
        parameters = [parameter for chunk in chunks for parameter in chunk.parameters()]
        self._on_host = [(parameter, parameter.data.cpu().pin_memory()) for parameter in parameters] if moves else []
        self._leave()

    @contextmanager
    def here(self) -> Iterator[list[GPTModel]]:
        """Inside the block its weights are on the device."""
        for parameter, copy in self._on_host:
            parameter.data = copy.to(host.device(), non_blocking=True)
        yield self._chunks
        self._leave()

    def _leave(self) -> None:
        for parameter, copy in self._on_host:
            parameter.data = copy


class Learner:
    """A model with its optimizer. `chunks` may be asked at any time; the optimizer's state is there while it learns."""

    def __init__(self, chunks: list[GPTModel], stage: PpoStage, layout: Layout) -> None:
        self.chunks = chunks
        self._wrapped = wrap(chunks, layout)
        self.optimizer = build_optimizer(self._wrapped, stage.optimizer, layout, stage.precision)
        self._moves = stage.offload and has_host_apart()
        self._copies: dict[int, Tensor] = {}  # on the host, by the tensor's id

    def step(self, loss: Loss, micro_batches: list[Any] | list[Shaped], rate: float) -> tuple[list[float], float]:
        """One optimizer step; the loss's figures over all ranks, and the gradient's norm."""
        set_learning_rate(self.optimizer, rate)
        figures, norm = train_step(self._wrapped, self.optimizer, loss, micro_batches)
        return over_all_ranks(figures).tolist(), norm

    @contextmanager
    def learning(self) -> Iterator[None]:
        """Inside the block the optimizer's state is on the device: to learn, to save and to load."""
        if self._moves:
            for tensor in optimizer_state.tensors(self.optimizer):
                if tensor.device.type == "cpu":
                    tensor.data = tensor.data.to(host.device(), non_blocking=True)
        yield
        if self._moves:
            for tensor in optimizer_state.tensors(self.optimizer):
                copy = self._copies.setdefault(id(tensor), torch.empty_like(tensor, device="cpu", pin_memory=True))
                copy.copy_(tensor)
                tensor.data = copy


@dataclass(frozen=True)
class Models:
    actor: Learner
    critic: Learner
    reference: Frozen
    reward: Frozen


def build(stage: PpoStage, inputs: dict[str, Path]) -> Models:
    """The models as the round begins. `inputs`: the folders of the results that the stage needs. Raises PhaseError."""
    critic = _build(stage, stage.critic_layout, "score", seed=stage.seed)
    if stage.critic_from is not None:
        checkpoint.load_weights(critic, _newest(inputs[stage.critic_from] / CRITIC, stage.critic_from))
    else:
        checkpoint.load_weights(critic, _newest(inputs[stage.reward_from], stage.reward_from), head=False)
    assert stage.start_from is not None, "PPO starts from a model"
    return Models(
        reference=_frozen(stage, stage.layout, "language", inputs, stage.reference_from),
        reward=_frozen(stage, stage.critic_layout, "score", inputs, stage.reward_from),
        critic=Learner(critic, stage, stage.critic_layout),
        actor=Learner(_loaded(stage, stage.layout, "language", inputs, stage.start_from), stage, stage.layout),
    )


def _frozen(stage: PpoStage, layout: Layout, head: Head, inputs: dict[str, Path], name: str) -> Frozen:
    return Frozen(_loaded(stage, layout, head, inputs, name), offload=stage.offload)


def _loaded(stage: PpoStage, layout: Layout, head: Head, inputs: dict[str, Path], name: str) -> list[GPTModel]:
    chunks = _build(stage, layout, head, seed=None)
    checkpoint.load_weights(chunks, _newest(inputs[name], name))
    return chunks


def _build(stage: PpoStage, layout: Layout, head: Head, *, seed: int | None) -> list[GPTModel]:
    return build_model(
        stage.model,
        layout,
        sequence_length=stage.sequence_length,
        rope_base=stage.rope_base,
        precision=stage.precision,
        attention=stage.attention,
        loss=stage.loss,
        seed=seed,
        placement=stage.placement,
        head=head,
    )


def _newest(folder: Path, stage: str) -> Path:
    found = checkpoint.latest(folder / CHECKPOINTS)
    if found is None:
        raise PhaseError(f"stage `{stage}` left no complete checkpoint in {folder / CHECKPOINTS}")
    return found


def has_host_apart() -> bool:
    """Whether the host's memory is another one than the device's."""
    return host.device().type == "cuda"
