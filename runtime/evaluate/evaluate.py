"""The evaluation stage: the last checkpoint of a phase, scored on held-out text and sampled."""

from collections.abc import Callable
from pathlib import Path

from trainwright.runtime.data.inputs import holding
from trainwright.runtime.data.vocabulary import MODEL_FILE, Vocabulary
from trainwright.runtime.evaluate.process import answers_in_chat, one_process
from trainwright.spec.plan import EvaluateStage, Plan, TrainingStage


def run(
    stage: EvaluateStage,
    *,
    plan: Plan,
    inputs: dict[str, Path],
    out: Path,
    progress: Callable[[str], None],
) -> dict[str, object]:
    """`out` holds `scores.json` and `samples.json`, each if the plan asks for it; returns the figures.

    Raises NoCheckpoint, DataError.
    """
    phase = plan.stage(stage.of)
    if not isinstance(phase, TrainingStage):
        raise TypeError(f"`{stage.of}` is not a training stage, so it has no model to evaluate")
    with one_process():
        from trainwright.runtime.evaluate.completion import Sampler
        from trainwright.runtime.evaluate.load import load_model
        from trainwright.runtime.evaluate.perplexity import write_scores
        from trainwright.runtime.evaluate.samples import write_samples

        loaded = load_model(phase, inputs[stage.of])
        vocabulary = Vocabulary(holding(inputs, MODEL_FILE))
        summary: dict[str, object] = {"of": stage.of, "checkpoint": loaded.checkpoint.name}
        if stage.perplexity is not None:
            tokens = holding(inputs, "counts.json")
            scores = write_scores(loaded.model, vocabulary, tokens, stage.perplexity, out, progress)
            summary["bits_per_byte"] = {source: round(score.bits_per_byte, 4) for source, score in scores.items()}
        if stage.samples is not None:
            sampler = Sampler(loaded.model, vocabulary, chat=answers_in_chat(phase))
            summary["samples"] = len(write_samples(sampler, stage.samples, out))
    return summary
