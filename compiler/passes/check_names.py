"""Names of phases: there are some, each once, none that a stage of another kind has, and a chain without a loop."""

from collections.abc import Iterator

from trainwright.compiler.draft import Check, Draft
from trainwright.compiler.nearest import nearest_name
from trainwright.spec.diagnostics import Diagnostic, Label

RESERVED = (
    "ingest",
    "tokenizer",
    "tokenize",
    "conversations",
    "evaluate",
    "export",
    "sft",
    "reward",
    "ppo",
    "online",
    "dpo",
)


def check_names(draft: Draft) -> Iterator[Diagnostic]:
    phases = draft.spec.phases
    if not phases:
        yield Diagnostic(
            "TW230", "there is no phase to train", help="add a `[[phases]]` table with a name, tokens and a mixture"
        )
    first: dict[str, int] = {}
    for index, phase in enumerate(phases):
        where = draft.value_at("phases", index, "name")
        if phase.name in RESERVED:
            yield Diagnostic(
                "TW232",
                f"`{phase.name}` is the name of a stage that is not a phase",
                where,
                f"name the phase otherwise, for example `{phase.name}-phase`",
            )
        elif phase.name in first:
            earlier = draft.value_at("phases", first[phase.name], "name")
            labels = (Label(earlier, "taken here"),) if earlier else ()
            yield Diagnostic("TW231", f"two phases are named `{phase.name}`", where, "name each phase once", labels)
        if phase.from_ is not None and phase.from_ not in first:
            yield _start(draft, index, phase.from_, sorted(first))
        first.setdefault(phase.name, index)


def _start(draft: Draft, index: int, name: str, earlier: list[str]) -> Diagnostic:
    where = draft.value_at("phases", index, "from")
    later = [phase.name for phase in draft.spec.phases[index:]]
    if name not in later:
        return Diagnostic("TW233", f"`from` names `{name}`, which is not a phase", where, nearest_name(name, earlier))
    says = "itself" if name == draft.spec.phases[index].name else f"`{name}`, which comes later"
    start = f"start it from {' or '.join(f'`{each}`' for each in earlier)}" if earlier else "leave `from` out"
    return Diagnostic("TW234", f"phase `{draft.spec.phases[index].name}` starts from {says}", where, start)


CHECK_NAMES = Check(check_names, needs=("spec.phases",), holds="names are sound")
