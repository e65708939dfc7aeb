"""The stages of a plan up to a pre-trained model, its evaluation and its export."""

from typing import Literal

from trainwright.spec.layout import Layout, ModelPlan, Part, Placement


class Stage(Part, kw_only=True, frozen=True, tag_field="kind"):
    """One node of the stage graph. `fingerprint` covers all that determines its result (not its layout)."""

    name: str
    needs: tuple[str, ...]
    fingerprint: str = ""


class SourcePlan(Part, kw_only=True, frozen=True):
    """One source of text, and the digest of its content as it was when the plan was made."""

    name: str
    path: str
    kind: str
    language: str
    license: str
    format: Literal["auto", "text", "jsonl", "files"]
    text_key: str
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    max_size_bytes: int | None
    repository_bytes: int | None = None  # a repository is one document of up to this much text; None: each file is one
    files: int | None  # None: remote, not looked at
    size_bytes: int | None
    digest: str | None


class IngestStage(Stage, kw_only=True, frozen=True, tag="ingest"):
    """Raw files -> documents; exact de-duplication across sources; held-out split by document."""

    sources: tuple[SourcePlan, ...]
    held_out: float
    seed: int
    workers: int  # 0: one per core


class TokenizerStage(Stage, kw_only=True, frozen=True, tag="tokenizer"):
    """A SentencePiece model: trained on the mixture, or taken as it is from `path`."""

    path: str | None
    digest: str | None
    algorithm: Literal["bpe"]
    vocab_size: int
    mixture: dict[str, float]
    byte_fallback: bool
    split_digits: bool
    character_coverage: float
    spare_tokens: int
    sample_bytes: int
    seed: int
    workers: int


class TokenizeStage(Stage, kw_only=True, frozen=True, tag="tokenize"):
    """Documents -> Megatron-core's IndexedDataset, one `.bin/.idx` pair per source and split."""

    sources: tuple[str, ...]
    vocab_size: int
    workers: int


class LearningRatePlan(Part, kw_only=True, frozen=True):
    """The curve over steps `offset .. offset + steps` of a decay that ends at `decay_steps`."""

    peak: float
    final: float
    warmup_steps: int
    decay: Literal["cosine", "linear", "constant"]
    decay_steps: int  # of the whole curve, warm-up included; several phases may share one curve
    offset: int  # steps of the curve that earlier phases used


class OptimizerPlan(Part, kw_only=True, frozen=True):
    kind: Literal["adamw"]
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    clip: float


class CheckpointPlan(Part, kw_only=True, frozen=True):
    every_steps: int | None
    every_seconds: float | None
    keep: int


class TrainingStage(Stage, kw_only=True, frozen=True):
    """What all stages have in common that train a model, from the checkpoint of `start_from` or from the seed."""

    model: ModelPlan
    start_from: str | None
    seed: int
    precision: Literal["bf16", "fp32"]
    steps: int  # 0: as many as the data give, known once they are packed
    tokens_per_step: int
    sequence_length: int
    sequences_per_step: int
    rope_base: float
    learning_rate: LearningRatePlan
    optimizer: OptimizerPlan
    attention: Literal["auto", "reference", "sdpa", "portable", "hopper", "flash-attn"]
    loss: Literal["logits", "fused"] = "logits"  # what the head does: `fused` never holds all logits of a micro-batch
    # Operator -> its kernels: a run takes the first that can run where it is, and the last always can.
    operators: dict[str, tuple[str, ...]] = {}
    layout: Layout
    placement: Placement
    checkpoint: CheckpointPlan
    log_every: int

    @property
    def world_size(self) -> int:
        """Processes that execute it."""
        return self.layout.world_size


class PhaseStage(TrainingStage, kw_only=True, frozen=True, tag="phase"):
    """A pre-training phase. It goes on with the optimizer's state of `start_from` too."""

    index: int
    tokens: int
    mixture: dict[str, float]  # over sources, sums to 1


class PerplexityPlan(Part, kw_only=True, frozen=True):
    """Held-out loss per source: nats per token, bits per byte and perplexity."""

    sources: tuple[str, ...]
    sequence_length: int
    batch: int  # sequences


class SamplesPlan(Part, kw_only=True, frozen=True):
    prompts: tuple[str, ...]
    max_tokens: int
    temperature: float
    top_p: float
    seed: int


class EvaluateStage(Stage, kw_only=True, frozen=True, tag="evaluate"):
    """Looks at the last checkpoint of the phase `of`, on one process."""

    of: str
    perplexity: PerplexityPlan | None
    samples: SamplesPlan | None


class ExportStage(Stage, kw_only=True, frozen=True, tag="export"):
    """The last checkpoint of the phase `of` in formats that other programs load."""

    of: str
    formats: tuple[Literal["huggingface", "internlm2"], ...]
    precision: Literal["bf16", "fp32"]
    max_positions: int
    rope_base: float
    code_newline: bool = True  # of the chat template, as `ConversationsStage` has it


AnyStage = IngestStage | TokenizerStage | TokenizeStage | PhaseStage | EvaluateStage | ExportStage
