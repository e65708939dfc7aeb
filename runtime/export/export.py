"""The export stage: the last checkpoint of a phase in formats that other programs load."""

import shutil
from collections.abc import Callable
from pathlib import Path

from trainwright.runtime.data.inputs import holding
from trainwright.runtime.data.vocabulary import MODEL_FILE, Vocabulary
from trainwright.runtime.evaluate.process import one_process
from trainwright.runtime.export import huggingface, internlm2
from trainwright.runtime.export.folder import write_model
from trainwright.spec.plan import ExportStage, Plan, RewardStage, TrainingStage

_FORMATS = {"huggingface": huggingface.FORMAT, "internlm2": internlm2.FORMAT}
_SHARD_BYTES = 5_000_000_000  # of one file, as transformers cuts them


def run(
    stage: ExportStage,
    *,
    plan: Plan,
    inputs: dict[str, Path],
    out: Path,
    progress: Callable[[str], None],
) -> dict[str, object]:
    """`out/<format>` holds the whole model for each format, or is not there at all.

    Raises NoCheckpoint, TokenizerNotConvertible, HeadSizeNotExpressible.
    """
    phase = plan.stage(stage.of)
    if not isinstance(phase, TrainingStage):
        raise TypeError(f"`{stage.of}` is not a training stage, so it has no model to export")
    with one_process():
        from trainwright.runtime.evaluate.load import load_model

        loaded = load_model(phase, inputs[stage.of])
        tokenizer_folder = holding(inputs, MODEL_FILE)
        reward_token = Vocabulary(tokenizer_folder).reward if isinstance(phase, RewardStage) else None
        summary: dict[str, object] = {
            "of": stage.of,
            "checkpoint": loaded.checkpoint.name,
            "precision": stage.precision,
        }
        for name in stage.formats:
            temporary, final = out / f".{name}.new", out / name
            for stale in (temporary, final):
                shutil.rmtree(stale, ignore_errors=True)
            temporary.mkdir()
            size_bytes = write_model(
                _FORMATS[name],
                loaded.tensors(),
                phase.model,
                stage,
                temporary,
                tokenizer_folder=tokenizer_folder,
                shard_bytes=_SHARD_BYTES,
                reward_token=reward_token,
            )
            temporary.rename(final)
            progress(f"{stage.of} as {name}: {size_bytes / 2**20:.1f} MiB of weights")
            summary[name] = {"folder": name, "weights_bytes": size_bytes}
    return summary
