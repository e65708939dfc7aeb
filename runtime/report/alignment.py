"""Reads what the stages of alignment left in a run's folder. Of large files only as much as a page can show."""

import msgspec

from trainwright.runtime.report.alignment_facts import (
    AlignmentFacts,
    ConversationRows,
    DpoFacts,
    Exploits,
    OnlineFacts,
    PpoFacts,
    Probe,
    RankedLedger,
    RewardFacts,
    Rollout,
    SftFacts,
    Statistics,
    TalkLedger,
)
from trainwright.runtime.report.facts import Curve, StageFacts, is_number
from trainwright.runtime.report.files import Files
from trainwright.runtime.report.ppo_facts import best_and_worst, measured_ms, planned_ms, side_by_side
from trainwright.spec.artefact import PROBES_FILE, ROLLOUTS_FILE, store_folder
from trainwright.spec.plan import (
    ConversationsStage,
    DpoStage,
    OnlineStage,
    Plan,
    PpoStage,
    RewardStage,
    SftStage,
)

_LEDGER, _LEDGER_ROWS = "ledger.json", "ledger.jsonl"
_REASONS = 3  # of rows left out, told of a stage
_TAIL_BYTES = 1 << 20  # of the rollouts


class _LeftOut(msgspec.Struct):
    why: str


def read_alignment(files: Files, plan: Plan, stages: dict[str, StageFacts], curves: dict[str, Curve]) -> AlignmentFacts:
    """All that the plan's stages of alignment left; `stages` and `curves` by the stage's name."""
    reader = _Reader(files, plan, stages, curves)
    rounds = [stage for stage in plan.stages if isinstance(stage, PpoStage)]
    return AlignmentFacts(
        conversations={
            source: rows
            for stage in plan.stages
            if isinstance(stage, ConversationsStage)
            for source, rows in reader.conversations(stage).items()
        },
        sft=tuple(reader.sft(stage) for stage in plan.stages if isinstance(stage, SftStage)),
        reward=tuple(reader.reward(stage) for stage in plan.stages if isinstance(stage, RewardStage)),
        ppo=tuple(reader.ppo(stage) for stage in rounds),
        online=tuple(reader.online(stage) for stage in plan.stages if isinstance(stage, OnlineStage)),
        dpo=tuple(reader.dpo(stage) for stage in plan.stages if isinstance(stage, DpoStage)),
        side_by_side=side_by_side({stage.name: reader.probes(stage) for stage in rounds}),
    )


class _Reader:
    """Each method tells of one stage."""

    def __init__(self, files: Files, plan: Plan, stages: dict[str, StageFacts], curves: dict[str, Curve]) -> None:
        self._files, self._plan, self._stages, self._curves = files, plan, stages, curves

    def conversations(self, stage: ConversationsStage) -> dict[str, ConversationRows]:
        path = store_folder(self._files.folder, stage) / _LEDGER
        return self._files.read(path, msgspec.json.Decoder(dict[str, ConversationRows]).decode) or {}

    def sft(self, stage: SftStage) -> SftFacts:
        path, summary = store_folder(self._files.folder, stage) / _LEDGER, self._stages[stage.name].summary
        by_source = summary.get("held_out_loss_by_source")
        return SftFacts(
            stage=stage.name,
            ledger=self._files.read(path, msgspec.json.Decoder(TalkLedger).decode),
            held_out_loss=_number(summary.get("held_out_loss")),
            held_out_loss_by_source={name: _number(value) for name, value in by_source.items()}
            if isinstance(by_source, dict)
            else {},
        )

    def reward(self, stage: RewardStage) -> RewardFacts:
        path = store_folder(self._files.folder, stage) / "statistics.json"
        pairs = [self._stages[name].summary.get("pairs") for name in stage.patches]
        known = [each for each in pairs if isinstance(each, int)]
        return RewardFacts(
            stage=stage.name,
            round=stage.round,
            ledger=self._ranked(stage),
            left_out=self._left_out(stage),
            corrections=sum(known) if len(known) == len(pairs) else None,
            statistics=self._files.read(path, msgspec.json.Decoder(Statistics).decode),
            min_accuracy=stage.min_accuracy,
        )

    def ppo(self, stage: PpoStage) -> PpoFacts:
        folder = store_folder(self._files.folder, stage)
        estimate = next((each for each in self._plan.estimates if each.stage == stage.name), None)
        tail = self._files.last_rows(folder / ROLLOUTS_FILE, Rollout, _TAIL_BYTES)
        newest = [row for row in tail if row.iteration == tail[-1].iteration]
        return PpoFacts(
            stage=stage.name,
            round=stage.round,
            planned_ms=planned_ms(estimate),
            measured_ms=measured_ms(self._curves[stage.name]),
            newest=best_and_worst(newest),
            of=len(newest),
        )

    def probes(self, stage: PpoStage) -> list[Probe]:
        return self._files.last_rows(store_folder(self._files.folder, stage) / PROBES_FILE, Probe, None)

    def online(self, stage: OnlineStage) -> OnlineFacts:
        path, summary = store_folder(self._files.folder, stage) / "exploits.json", self._stages[stage.name].summary
        counts = {name: summary.get(name) for name in ("candidates", "labels", "pairs")}
        return OnlineFacts(
            stage=stage.name,
            round=stage.round,
            found=self._files.read(path, msgspec.json.Decoder(Exploits).decode) or Exploits(),
            **{name: value if isinstance(value, int) else None for name, value in counts.items()},
        )

    def dpo(self, stage: DpoStage) -> DpoFacts:
        summary = self._stages[stage.name].summary
        return DpoFacts(
            stage=stage.name,
            ledger=self._ranked(stage),
            left_out=self._left_out(stage),
            held_out_loss=_number(summary.get("held_out_loss")),
            accuracy=_number(summary.get("accuracy")),
        )

    def _ranked(self, stage: RewardStage | DpoStage) -> RankedLedger | None:
        path = store_folder(self._files.folder, stage) / _LEDGER
        return self._files.read(path, msgspec.json.Decoder(RankedLedger).decode)

    def _left_out(self, stage: RewardStage | DpoStage) -> tuple[str, ...]:
        """Why, in the words of the first rows that were left out."""
        path = store_folder(self._files.folder, stage) / _LEDGER_ROWS
        return tuple(row.why for row in self._files.first_rows(path, _LeftOut, _REASONS))


def _number(value: object) -> float | None:
    return float(value) if is_number(value) else None  # type: ignore[arg-type]  # is_number is no type guard
