"""The spec's story as a graph of stages: ingest, tokenizer, tokenize, each phase, then evaluations and exports."""

from typing import Literal

from trainwright.compiler.cost.case import fuses_loss
from trainwright.compiler.draft import Draft, Pass
from trainwright.compiler.graph import StageGraph
from trainwright.spec.plan import (
    AnyStage,
    CheckpointPlan,
    EvaluateStage,
    ExportStage,
    IngestStage,
    OptimizerPlan,
    PerplexityPlan,
    PhaseStage,
    Placement,
    SamplesPlan,
    TokenizerStage,
    TokenizeStage,
)
from trainwright.spec.spec import Evaluation
from trainwright.spec.units import Steps, interval

# What an evaluation takes when the spec leaves it open; ours.
MAX_TOKENS = 64
TEMPERATURE = 0.8
TOP_P = 0.9
EVALUATION_BATCH_TOKENS = 8192


def lower_to_stages(draft: Draft) -> None:
    phases = [_phase(draft, index) for index in range(len(draft.spec.phases))]
    stages: list[AnyStage] = [_ingest(draft), _tokenizer(draft), _tokenize(draft), *phases]
    for phase in phases:
        evaluation = _evaluate(draft, phase)
        if evaluation is not None:
            stages.append(evaluation)
    for phase in phases:
        if draft.spec.export is not None and phase.name in draft.spec.export.of:
            stages.append(_export(draft, phase))
    draft.lowered = StageGraph(stages)


def _workers(draft: Draft) -> int:
    workers = draft.spec.data.workers
    return 0 if workers == "auto" else workers


def _ingest(draft: Draft) -> IngestStage:
    return IngestStage(
        name="ingest",
        needs=(),
        sources=tuple(draft.sources.values()),
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
        sources=tuple(draft.sources),
        vocab_size=draft.model.vocab_size,
        workers=_workers(draft),
    )


def _phase(draft: Draft, index: int) -> PhaseStage:
    run, phase, course = draft.spec.run, draft.spec.phases[index], draft.courses[index]
    optimizer = draft.spec.optimizer
    every = interval(run.checkpoint.every)
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
        optimizer=OptimizerPlan(
            kind=optimizer.kind,
            betas=optimizer.betas,
            eps=optimizer.eps,
            weight_decay=optimizer.weight_decay,
            clip=optimizer.clip,
        ),
        attention=draft.spec.kernels.attention,
        loss=_loss(draft, index),
        layout=draft.layouts[index],
        placement=Placement(nodes=draft.spec.cluster.nodes, ranks_per_node=draft.spec.cluster.gpus_per_node, chunks=()),
        checkpoint=CheckpointPlan(
            every_steps=every.steps if isinstance(every, Steps) else None,
            every_seconds=None if isinstance(every, Steps) else every.seconds,
            keep=run.checkpoint.keep,
        ),
        log_every=run.log_every,
    )


def _loss(draft: Draft, index: int) -> Literal["logits", "fused"]:
    layout = draft.layouts[index]
    tokens = draft.spec.phases[index].sequence_length * layout.micro_batch / layout.context
    fused = fuses_loss(draft.spec.kernels.loss, tokens, draft.model.vocab_size / layout.tensor)
    return "fused" if fused else "logits"


def _evaluate(draft: Draft, phase: PhaseStage) -> EvaluateStage | None:
    mine = {each.kind: each for each in draft.spec.evaluation if phase.name in each.of}
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


def _perplexity(draft: Draft, phase: PhaseStage, evaluation: Evaluation) -> PerplexityPlan:
    return PerplexityPlan(
        sources=evaluation.sources or tuple(draft.sources),
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


def _export(draft: Draft, phase: PhaseStage) -> ExportStage:
    formats = draft.spec.export.formats if draft.spec.export else ()
    return ExportStage(
        name=f"export.{phase.name}",
        needs=("tokenizer", phase.name),
        of=phase.name,
        formats=formats,
        precision=phase.precision,
        max_positions=phase.sequence_length,
        rope_base=phase.rope_base,
    )


LOWER_TO_STAGES = Pass(
    lower_to_stages,
    needs=(
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
        "tokenizer_digest",
        "evaluations are sound",
        "references are sound",
    ),
    gives=("lowered",),
)
