"""The plan: what the compiler emits and the runtime executes, and the only bridge between the two.

A plan is complete: the runtime takes no default of its own. Two compilations of one input give the same bytes.
Paths are relative to `Plan.root`, which is itself relative to the folder the plan lies in, or URLs.
Published JSON schema: `schemas/plan.schema.json`.
"""

import hashlib
from typing import Any, Literal

import msgspec
from msgspec import Struct

from trainwright.spec.alignment_stage import (
    ConditionPlan,
    ConversationsStage,
    DpoStage,
    LabelFile,
    LabellerPlan,
    OnlineStage,
    PpoStage,
    PretrainPlan,
    RewardStage,
    SftStage,
)
from trainwright.spec.device import (
    HardwareFile,
)
from trainwright.spec.estimate import (
    ChunkTime,
    Estimate,
    Goodput,
    IterationEstimate,
    Moment,
    RankMemory,
    StepTime,
)
from trainwright.spec.layout import (
    Coordinates,
    Layout,
    ModelChunk,
    ModelPlan,
    Part,
    Placement,
)
from trainwright.spec.stage import (
    CheckpointPlan,
    EvaluateStage,
    ExportStage,
    IngestStage,
    LearningRatePlan,
    OptimizerPlan,
    PerplexityPlan,
    PhaseStage,
    SamplesPlan,
    SourcePlan,
    Stage,
    TokenizerStage,
    TokenizeStage,
    TrainingStage,
)

# The door to all that a plan holds; its parts have files of their own.
__all__ = [
    "PLAN_VERSION",
    "AnyStage",
    "Assumption",
    "CheckpointPlan",
    "ChunkTime",
    "ConditionPlan",
    "ConversationsStage",
    "Coordinates",
    "DpoStage",
    "Estimate",
    "EvaluateStage",
    "ExportStage",
    "Goodput",
    "Hardware",
    "IngestStage",
    "IterationEstimate",
    "LabelFile",
    "LabellerPlan",
    "Layout",
    "LearningRatePlan",
    "ModelChunk",
    "ModelPlan",
    "Moment",
    "Notice",
    "OnlineStage",
    "OptimizerPlan",
    "OtherVersionError",
    "Part",
    "PerplexityPlan",
    "PhaseStage",
    "Placement",
    "Plan",
    "PpoStage",
    "PretrainPlan",
    "RankMemory",
    "RewardStage",
    "SamplesPlan",
    "SftStage",
    "SourcePlan",
    "Stage",
    "StepTime",
    "TokenizeStage",
    "TokenizerStage",
    "TrainingStage",
    "decode",
    "encode",
    "fingerprint",
    "identity",
]

PLAN_VERSION = 1

AnyStage = (
    IngestStage
    | TokenizerStage
    | TokenizeStage
    | PhaseStage
    | ConversationsStage
    | SftStage
    | RewardStage
    | PpoStage
    | OnlineStage
    | DpoStage
    | EvaluateStage
    | ExportStage
)


class Assumption(Part, kw_only=True, frozen=True):
    """A value that nobody wrote, and where it comes from."""

    key: str
    value: str
    origin: str
    why: str


class Notice(Part, kw_only=True, frozen=True):
    """A part of the spec that this version checks but cannot execute yet; `run` refuses if `blocks`."""

    key: str
    message: str
    blocks: bool


class Hardware(Part, kw_only=True, frozen=True):
    name: str
    device: Literal["cpu", "cuda"]
    nodes: int
    gpus_per_node: int
    memory_bytes: int | None
    peak_flops: float | None  # of the run's precision, dense
    price_per_gpu_hour: float | None
    figures: HardwareFile = HardwareFile()  # all that prices the plan, the spec's network in its place


class Plan(Part, kw_only=True, frozen=True):
    """A whole plan; `stages` are in an order in which they can be executed."""

    version: int
    compiler: str
    name: str
    root: str
    flops_convention: str
    hardware: Hardware
    stages: tuple[AnyStage, ...]
    estimates: tuple[Estimate, ...]
    assumptions: tuple[Assumption, ...]
    notices: tuple[Notice, ...]
    spec_files: dict[str, str] = {}  # what it was compiled from, relative to `root` -> digest of the values there

    def stage(self, name: str) -> AnyStage:
        """The stage of that name; KeyError if there is none."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(name)


def encode(plan: Plan) -> bytes:
    """The plan's bytes: indented JSON in the order of the fields, mappings sorted, one newline at the end."""
    return msgspec.json.format(msgspec.json.encode(plan, order="deterministic"), indent=2) + b"\n"


class OtherVersionError(msgspec.ValidationError):
    """The plan is one of another version of this format."""


class _Versioned(Struct):
    version: int


def decode(data: bytes) -> Plan:
    """The plan in `data`. Raises msgspec.ValidationError, which names the path, if it is not one."""
    version = msgspec.json.decode(data, type=_Versioned).version
    if version != PLAN_VERSION:
        raise OtherVersionError(f"it has version {version}, this is trainwright for version {PLAN_VERSION}")
    return msgspec.json.decode(data, type=Plan)


# What a stage is executed with does not change its result: a phase may be resumed under another layout, and what the
# loss is made of follows from the layout. A gate judges a result, it does not make one.
_NOT_IDENTITY = frozenset(
    {
        "fingerprint",
        "needs",
        "layout",
        "critic_layout",
        "placement_kind",
        "offload",
        "loss",
        "operators",
        "placement",
        "workers",
        "checkpoint",
        "log_every",
        "min_accuracy",
        "timeout_s",
    }
)
# Raised by one when the code of a kind of stage changes what it computes, so that older results are not reused.
_REVISIONS = {
    "ingest": 1,
    "tokenizer": 1,
    "tokenize": 1,
    "phase": 1,
    "conversations": 2,
    "sft": 1,
    "reward": 1,
    "ppo": 1,
    "online": 2,
    "dpo": 1,
    "evaluate": 1,
    "export": 2,
}


def identity(stage: AnyStage) -> dict[str, object]:
    """All of the stage's own values that determine its result, as plain data."""
    plain = msgspec.to_builtins(stage, order="deterministic")
    kept = {key: value for key, value in plain.items() if key not in _NOT_IDENTITY}
    return {**_by_content(kept), "revision": _REVISIONS[plain["kind"]]}


def _by_content(plain: Any) -> Any:
    """Text that was looked at, at any depth, is known by its digest wherever it lies; other text by its path."""
    if isinstance(plain, list | tuple):
        return [_by_content(each) for each in plain]
    if isinstance(plain, dict):
        known = plain.get("digest") is not None
        return {key: _by_content(value) for key, value in plain.items() if key != "path" or not known}
    return plain


def fingerprint(stage: AnyStage, needs: dict[str, str]) -> str:
    """Digest of the stage's identity and of the fingerprints of what it needs (name -> fingerprint)."""
    data = msgspec.json.encode({"stage": identity(stage), "needs": needs}, order="sorted")
    return hashlib.blake2b(data, digest_size=16).hexdigest()
