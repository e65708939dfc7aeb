"""The spec's story as a graph of stages: ingest, tokenizer, tokenize, each phase, then evaluations and exports."""

from typing import Literal

from trainwright.compiler.alignment import stage_name
from trainwright.compiler.cost.case import fuses_loss
from trainwright.compiler.draft import Draft, Pass
from trainwright.compiler.graph import StageGraph
from trainwright.compiler.training import checkpoint_plan, devices_of, optimizer_plan
from trainwright.spec.plan import (
    AnyStage,
    EvaluateStage,
    ExportStage,
    IngestStage,
    PerplexityPlan,
    PhaseStage,
    SamplesPlan,
    TokenizerStage,
    TokenizeStage,
    TrainingStage,
)
from trainwright.spec.spec import Evaluation

# What an evaluation takes when the spec leaves it open; ours.
MAX_TOKENS = 64
TEMPERATURE = 0.8
TOP_P = 0.9
EVALUATION_BATCH_TOKENS = 8192


def lower_to_stages(draft: Draft) -> None:
    phases = [_phase(draft, index) for index in range(len(draft.spec.phases))]
    stages: list[AnyStage] = [_ingest(draft), _tokenizer(draft), _tokenize(draft), *phases, *draft.aligned]
    trained = [stage for stage in stages if isinstance(stage, TrainingStage)]
    for stage in trained:
        evaluation = _evaluate(draft, stage)
        if evaluation is not None:
            stages.append(evaluation)
    exported = draft.spec.export.of if draft.spec.export is not None else ()
    wanted = {stage_name(draft, name) for name in exported}
    stages += [_export(draft, stage) for stage in trained if stage.name in wanted]
    draft.lowered = StageGraph(stages)


def _workers(draft: Draft) -> int:
    workers = draft.spec.data.workers
    return 0 if workers == "auto" else workers


def _texts(draft: Draft) -> tuple[str, ...]:
    """The sources that are read as text; conversations have a stage of their own."""
    return tuple(name for name, source in draft.sources.items() if source.kind in ("text", "code"))


def _ingest(draft: Draft) -> IngestStage:
    return IngestStage(
        name="ingest",
        needs=(),
        sources=tuple(draft.sources[name] for name in _texts(draft)),
        held_out=draft.spec.data.held_out,
        seed=draft.spec.run.seed,
        workers=_workers(draft),
    )


def _tokenizer(draft: Draft) -> TokenizerStage:
    tokenizer = draft.spec.tokenizer
    train = tokenizer.train
    mixture: dict[str, float] = {}
    if train is not None:
        mixture = draft.mixtures[train.mixture or draft.spec.phases[0].mixture]
    return TokenizerStage(
        name="tokenizer",
        needs=("ingest",) if train is not None else (),
        path=tokenizer.path,
        digest=draft.tokenizer_digest,
        algorithm="bpe",
        vocab_size=draft.model.vocab_size,
        mixture=mixture,
        byte_fallback=train.byte_fallback if train else False,
        split_digits=train.split_digits if train else False,
        character_coverage=train.character_coverage if train else 1.0,
        spare_tokens=train.spare_tokens if train else 0,
        sample_bytes=train.sample if train else 0,
        seed=draft.spec.run.seed,
        workers=_workers(draft),
    )


def _tokenize(draft: Draft) -> TokenizeStage:
    return TokenizeStage(
        name="tokenize",
        needs=("ingest", "tokenizer"),
        sources=_texts(draft),
        vocab_size=draft.model.vocab_size,
        workers=_workers(draft),
    )


def _phase(draft: Draft, index: int) -> PhaseStage:
    run, phase, course = draft.spec.run, draft.spec.phases[index], draft.courses[index]
    return PhaseStage(
        name=phase.name,
        needs=("tokenize",) if course.start_from is None else ("tokenize", course.start_from),
        model=draft.model,
        start_from=course.start_from,
        index=index,
        seed=run.seed,
        precision=run.precision,
        tokens=course.steps * course.tokens_per_step,
        steps=course.steps,
        tokens_per_step=course.tokens_per_step,
        sequence_length=phase.sequence_length,
        sequences_per_step=course.sequences_per_step,
        mixture=draft.mixtures[phase.mixture],
        rope_base=course.rope_base,
        learning_rate=course.learning_rate,
        optimizer=optimizer_plan(draft),
        attention=draft.spec.kernels.attention,
        loss=_loss(draft, index),
        layout=draft.layouts[index],
        placement=devices_of(draft, draft.layouts[index].world_size),
        checkpoint=checkpoint_plan(draft),
        log_every=run.log_every,
    )


def _loss(draft: Draft, index: int) -> Literal["logits", "fused"]:
    layout = draft.layouts[index]
    tokens = draft.spec.phases[index].sequence_length * layout.micro_batch / layout.context
    fused = fuses_loss(draft.spec.kernels.loss, tokens, draft.model.vocab_size / layout.tensor)
    return "fused" if fused else "logits"


def _evaluate(draft: Draft, phase: TrainingStage) -> EvaluateStage | None:
    mine = {
        each.kind: each for each in draft.spec.evaluation if phase.name in (stage_name(draft, name) for name in each.of)
    }
    perplexity, samples = mine.get("perplexity"), mine.get("samples")
    if perplexity is None and samples is None:
        return None
    return EvaluateStage(
        name=f"evaluate.{phase.name}",
        needs=("tokenizer", "tokenize", phase.name),
        of=phase.name,
        perplexity=_perplexity(draft, phase, perplexity) if perplexity else None,
        samples=_samples(draft, samples) if samples else None,
    )


def _perplexity(draft: Draft, phase: TrainingStage, evaluation: Evaluation) -> PerplexityPlan:
    return PerplexityPlan(
        sources=evaluation.sources or _texts(draft),
        sequence_length=phase.sequence_length,
        batch=max(1, EVALUATION_BATCH_TOKENS // phase.sequence_length),
    )


def _samples(draft: Draft, evaluation: Evaluation) -> SamplesPlan:
    return SamplesPlan(
        prompts=evaluation.prompts,
        max_tokens=evaluation.max_tokens or MAX_TOKENS,
        temperature=TEMPERATURE if evaluation.temperature is None else evaluation.temperature,
        top_p=TOP_P if evaluation.top_p is None else evaluation.top_p,
        seed=draft.spec.run.seed,
    )


def _export(draft: Draft, phase: TrainingStage) -> ExportStage:
    formats = draft.spec.export.formats if draft.spec.export else ()
    return ExportStage(
        name=f"export.{phase.name}",
        needs=("tokenizer", phase.name),
        of=phase.name,
        formats=formats,
        precision=phase.precision,
        max_positions=phase.sequence_length,
        rope_base=phase.rope_base,
        code_newline=draft.spec.chat.code_newline,
    )


LOWER_TO_STAGES = Pass(
    lower_to_stages,
    needs=(
        "spec.alignment",
        "spec.chat",
        "spec.cluster",
        "spec.data",
        "spec.evaluation",
        "spec.export",
        "spec.kernels",
        "spec.optimizer",
        "spec.phases",
        "spec.run",
        "spec.tokenizer",
        "model",
        "mixtures",
        "courses",
        "layouts",
        "sources",
        "aligned",
        "tokenizer_digest",
        "evaluations are sound",
        "references are sound",
    ),
    gives=("lowered",),
)
