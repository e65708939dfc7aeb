"""A phase's last checkpoint as a model on this one process, ready to be asked."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from megatron.core.models.gpt import GPTModel
from torch import Tensor

from trainwright.runtime import host
from trainwright.runtime.evaluate.process import ONE_PROCESS
from trainwright.runtime.train import checkpoint
from trainwright.runtime.train.model import build_model
from trainwright.spec.artefact import CHECKPOINTS
from trainwright.spec.plan import RewardStage, TrainingStage

# On a CPU another kernel asks the model: interpreting is for checking steps.
_OF_GPUS = ("portable", "hopper", "flash-attn")


class NoCheckpoint(Exception):
    """The phase's folder holds no complete checkpoint; the text says which folder."""


@dataclass(frozen=True)
class Loaded:
    """A model in evaluation mode, and the folder of the checkpoint its weights are from."""

    model: GPTModel
    checkpoint: Path

    def tensors(self) -> Mapping[str, Tensor]:
        """The parameters under Megatron-core's names."""
        return dict(self.model.named_parameters())


def load_model(phase: TrainingStage, folder: Path) -> Loaded:
    """The model of the newest complete checkpoint in a phase's result folder, whatever layout saved it.

    Of a reward stage it gives scores_BS in place of logits.
    Needs Megatron-core's parallel state to be initialised. Raises NoCheckpoint.
    """
    newest = checkpoint.latest(folder / CHECKPOINTS)
    if newest is None:
        raise NoCheckpoint(f"phase `{phase.name}` has no complete checkpoint in {folder}")
    chunks = build_model(
        phase.model,
        ONE_PROCESS,
        sequence_length=phase.sequence_length,
        rope_base=phase.rope_base,
        precision=phase.precision,
        attention="auto" if phase.attention in _OF_GPUS and host.device().type == "cpu" else phase.attention,
        seed=None,
        head="score" if isinstance(phase, RewardStage) else "language",
    )
    checkpoint.load_weights(chunks, newest)
    (model,) = chunks
    return Loaded(model.eval(), newest)
