"""Every `of`, `from` and `data` names something that exists."""

from collections.abc import Iterator

from trainwright.compiler.draft import Check, Draft
from trainwright.compiler.nearest import nearest_name
from trainwright.spec.diagnostics import Diagnostic, KeyPath


def check_references(draft: Draft) -> Iterator[Diagnostic]:
    spec = draft.spec
    phases = [phase.name for phase in spec.phases]
    alignment = [name for name in ("sft", "reward", "ppo", "dpo") if getattr(spec.alignment, name) is not None]
    stages = phases + alignment
    for index, evaluation in enumerate(spec.evaluation):
        for place, name in enumerate(evaluation.of):
            yield from _stage(draft, ("evaluation", index, "of", place), name, stages)
        for place, name in enumerate(evaluation.sources):
            if name not in spec.data.sources:
                yield _unknown_source(draft, ("evaluation", index, "sources", place), name)
    if spec.export is not None:
        for place, name in enumerate(spec.export.of):
            yield from _stage(draft, ("export", "of", place), name, stages)
    for name in alignment:
        table = getattr(spec.alignment, name)
        if name != "ppo":
            for place, source in enumerate(table.data):
                if source not in spec.data.sources:
                    yield _unknown_source(draft, ("alignment", name, "data", place), source)
    ppo = spec.alignment.ppo
    if ppo is not None and ppo.queries not in spec.data.sources:
        yield _unknown_source(draft, ("alignment", "ppo", "queries"), ppo.queries)


def _stage(draft: Draft, path: KeyPath, name: str, stages: list[str]) -> Iterator[Diagnostic]:
    if name not in stages:
        message = f"`{name}` is neither a phase nor an alignment stage of this spec"
        yield Diagnostic("TW233", message, draft.value_at(*path), nearest_name(name, stages))


def _unknown_source(draft: Draft, path: KeyPath, name: str) -> Diagnostic:
    message = f"`{name}` is not a source of `[data.sources]`"
    return Diagnostic("TW220", message, draft.value_at(*path), nearest_name(name, draft.spec.data.sources))


CHECK_REFERENCES = Check(
    check_references,
    needs=(
        "spec.alignment",
        "spec.data",
        "spec.evaluation",
        "spec.export",
        "spec.phases",
    ),
    holds="references are sound",
)
