"""What finished and unfinished stages left in their folders: curves, counts of the data, scores, samples."""

from pathlib import Path
from typing import Any

import msgspec

from trainwright.runtime.report.facts import Curve, Sample, Score, SourceFacts
from trainwright.runtime.report.files import Files
from trainwright.spec.artefact import METRICS_FILE, RESULT_FILE, store_folder
from trainwright.spec.plan import EvaluateStage, IngestStage, Plan, SourcePlan, TokenizeStage, TrainingStage


def read_curve(files: Files, stage: TrainingStage) -> Curve:
    """Every step that the stage logged; a step that was run twice, because of a restart, counts the second time."""
    rows = files.rows(store_folder(files.folder, stage) / METRICS_FILE)
    by_step = {row["step"]: row for row in rows if isinstance(row.get("step"), int)}
    return Curve(stage=stage.name, rows=tuple(by_step[step] for step in sorted(by_step)))


def read_sources(files: Files, plan: Plan, summaries: dict[str, dict[str, Any]]) -> tuple[SourceFacts, ...]:
    """The plan's sources with what ingest (`summaries`: stage -> its summary) and tokenise counted of each."""
    counts: dict[str, Any] = {}
    for stage in plan.stages:
        if isinstance(stage, TokenizeStage):
            counts = files.table(store_folder(files.folder, stage) / "counts.json")
    facts = []
    for stage in plan.stages:
        if isinstance(stage, IngestStage):
            ingested = summaries.get(stage.name, {}).get("sources", {})
            path = store_folder(files.folder, stage) / RESULT_FILE
            facts += [_source(files, path, source, ingested, counts) for source in stage.sources]
    return tuple(facts)


def read_scores(files: Files, plan: Plan) -> tuple[Score, ...]:
    """Held-out scores of every evaluation, in the plan's order."""
    return tuple(score for stage in _evaluations(plan) for score in _scores(files, stage))


def read_samples(files: Files, plan: Plan) -> tuple[Sample, ...]:
    """Continuations of prompts of every evaluation, in the plan's order."""
    return tuple(sample for stage in _evaluations(plan) for sample in _samples(files, stage))


def _evaluations(plan: Plan) -> list[EvaluateStage]:
    return [stage for stage in plan.stages if isinstance(stage, EvaluateStage)]


def _scores(files: Files, stage: EvaluateStage) -> list[Score]:
    path = store_folder(files.folder, stage) / "scores.json"
    table = files.table(path)
    return files.make(path, lambda: [_score(stage, source, row) for source, row in table.items()]) or []


def _samples(files: Files, stage: EvaluateStage) -> list[Sample]:
    def decode(data: bytes) -> list[Sample]:
        rows = msgspec.json.decode(data, type=dict[str, Any])["samples"]
        return [Sample(stage=stage.name, of=stage.of, prompt=row["prompt"], text=row["text"]) for row in rows]

    return files.read(store_folder(files.folder, stage) / "samples.json", decode) or []


def _source(
    files: Files, path: Path, source: SourcePlan, ingested: dict[str, Any], counts: dict[str, Any]
) -> SourceFacts:
    row, splits = ingested.get(source.name), counts.get(source.name)
    return SourceFacts(
        name=source.name,
        kind=source.kind,
        language=source.language,
        license=source.license,
        **(files.make(path, lambda: _ingest_figures(row)) or {} if row else {}),
        **(files.make(path, lambda: _token_figures(splits)) or {} if splits else {}),
    )


def _ingest_figures(row: dict[str, Any]) -> dict[str, Any]:
    train, held_out = row["train"], row["held_out"]
    return {
        "documents": train["documents"] + held_out["documents"],
        "size_bytes": train["bytes"] + held_out["bytes"],
        "held_out": held_out["documents"],
        "duplicates": sum(row["duplicates"].values()),
        "rejected": sum(row["bad_rows"].values()),
    }


def _token_figures(splits: dict[str, dict[str, int]]) -> dict[str, Any]:
    train = splits["train"]
    return {
        "train_tokens": train["tokens"],
        "bytes_per_token": train["bytes"] / train["tokens"] if train["tokens"] else None,
    }


def _score(stage: EvaluateStage, source: str, row: dict[str, Any]) -> Score:
    return Score(
        stage=stage.name,
        of=stage.of,
        source=source,
        bits_per_byte=row["bits_per_byte"],
        perplexity=row.get("perplexity"),
        gzip_bits_per_byte=row.get("gzip_bits_per_byte"),
        xz_bits_per_byte=row.get("xz_bits_per_byte"),
        size_bytes=row.get("bytes"),
    )
