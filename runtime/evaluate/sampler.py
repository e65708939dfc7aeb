"""The door to a trained model for `trainwright sample`: nothing of Megatron-core is imported before it is opened."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from trainwright.runtime.data.vocabulary import Vocabulary
from trainwright.runtime.evaluate.process import answers_in_chat, one_process
from trainwright.spec.artefact import store_folder
from trainwright.spec.plan import Plan, TokenizerStage, TrainingStage

if TYPE_CHECKING:
    from trainwright.runtime.evaluate.completion import Sampler


@contextmanager
def open_model(plan: Plan, run: Path, stage: str) -> "Iterator[Sampler]":
    """Inside the block, the model of the newest checkpoint of `stage` in the run's folder continues text, or answers.

    Raises NoCheckpoint, or ValueError if `stage` is not a training stage.
    """
    phase = plan.stage(stage)
    if not isinstance(phase, TrainingStage):
        raise ValueError(f"stage `{stage}` is not a training stage, so it has no model")
    (tokenizer,) = (other for other in plan.stages if isinstance(other, TokenizerStage))
    with one_process():
        from trainwright.runtime.evaluate.completion import Sampler
        from trainwright.runtime.evaluate.load import load_model

        model = load_model(phase, store_folder(run, phase)).model
        yield Sampler(model, Vocabulary(store_folder(run, tokenizer)), chat=answers_in_chat(phase))
