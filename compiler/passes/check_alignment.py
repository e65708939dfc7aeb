"""The tables of `[alignment]` go together: sources of the right kind, a reward model for PPO, room for an answer."""

from collections.abc import Iterator

from trainwright.compiler.alignment import STARTS, kinds_of, rounds_of, table_of
from trainwright.compiler.draft import AlignmentKind, Check, Draft
from trainwright.compiler.nearest import nearest_name
from trainwright.spec.alignment import Ppo, Reward
from trainwright.spec.auto import SEARCHED_KEYS
from trainwright.spec.diagnostics import Diagnostic, KeyPath
from trainwright.spec.files import is_remote
from trainwright.spec.units import Seconds, interval

_KINDS = {"sft": "chat", "reward": "preference", "dpo": "preference", "ppo": "prompts"}


def check_alignment(draft: Draft) -> Iterator[Diagnostic]:
    yield from _texts(draft)
    for kind in kinds_of(draft):
        yield from _start(draft, kind)
        yield from _sources(draft, kind)
        yield from _left_open(draft, kind)
        yield from _learning_rate(draft, kind)
    alignment = draft.spec.alignment
    if alignment.reward is not None:
        yield from _reward(draft, alignment.reward)
    if alignment.ppo is not None:
        yield from _ppo(draft, alignment.ppo)


def _texts(draft: Draft) -> Iterator[Diagnostic]:
    """Mixtures are of text: conversations are not read as it."""
    for name, weights in draft.spec.data.mixtures.items():
        for member in weights:
            source = draft.spec.data.sources.get(member)
            if source is not None and source.kind not in ("text", "code"):
                message = f"mixtures are of text and code, and `{member}` is of kind `{source.kind}`"
                where = draft.key_at("data", "mixtures", name, member)
                label = draft.label(f"of kind `{source.kind}`", "data", "sources", member, "kind")
                yield Diagnostic("TW260", message, where, "name it as `data` of a stage of `[alignment]`", label)


def _start(draft: Draft, kind: AlignmentKind) -> Iterator[Diagnostic]:
    table = table_of(draft, kind)
    name = table.from_ if table is not None else None
    there = [other for other in STARTS[kind] if table_of(draft, other) is not None]
    known = [*(phase.name for phase in draft.spec.phases), *there]
    if name is not None and name not in known:
        message = f"`{kind}` cannot start from `{name}`"
        where = draft.value_at("alignment", kind, "from")
        yield Diagnostic("TW233", message, where, nearest_name(name, known) or f"start it from {_named(known)}")


def _sources(draft: Draft, kind: AlignmentKind) -> Iterator[Diagnostic]:
    table = table_of(draft, kind)
    named: list[tuple[KeyPath, str]] = []
    if isinstance(table, Ppo):
        named.append((("alignment", kind, "queries"), table.queries))
    elif table is not None:
        named += [(("alignment", kind, "data", place), name) for place, name in enumerate(table.data)]
    for path, name in named:
        source = draft.spec.data.sources.get(name)
        if source is not None and source.kind != _KINDS[kind]:
            yield Diagnostic(
                "TW260",
                f"`{kind}` reads sources of kind `{_KINDS[kind]}`, and `{name}` is of kind `{source.kind}`",
                draft.value_at(*path),
                f'write `kind = "{_KINDS[kind]}"` in `[data.sources.{name}]` if that is what it holds',
                draft.label(f"of kind `{source.kind}`", "data", "sources", name, "kind"),
            )


def _left_open(draft: Draft, kind: AlignmentKind) -> Iterator[Diagnostic]:
    table = table_of(draft, kind)
    for key in SEARCHED_KEYS:
        if table is not None and getattr(table.topology, key) == "auto":
            where = draft.value_at("alignment", kind, "topology", key)
            message = f"layouts of `{kind}` are not searched for"
            yield Diagnostic("TW266", message, where, f"state `{key}`, or leave it out: `[topology]` holds then")


def _learning_rate(draft: Draft, kind: AlignmentKind) -> Iterator[Diagnostic]:
    """How many steps there will be is not known yet, so the length of the warm-up is not judged."""
    rate = getattr(table_of(draft, kind), "learning_rate", None)
    if rate is None:
        return
    path: KeyPath = ("alignment", kind, "learning_rate")
    if rate.final is not None and rate.final > rate.peak:
        message = f"`final` {rate.final:g} is above `peak` {rate.peak:g}, so the rate would rise"
        cure = f"a tenth of the peak is usual: {rate.peak / 10:g}"
        yield Diagnostic("TW245", message, draft.value_at(*path, "final"), cure)
    if isinstance(interval(rate.warmup), Seconds):
        message = f'`warmup = "{rate.warmup}"` is a time, but the curve runs over steps'
        yield Diagnostic("TW246", message, draft.value_at(*path, "warmup"), 'write it in steps, for example "20 steps"')


def _reward(draft: Draft, reward: Reward) -> Iterator[Diagnostic]:
    train = draft.spec.tokenizer.train
    if train is not None and train.spare_tokens == 0:
        message = "a reward model reads its score at a token of its own, and the tokenizer has no spare one"
        where = draft.value_at("tokenizer", "train", "spare_tokens")
        yield Diagnostic("TW265", message, where, "leave at least one: `spare_tokens = 10` is the default")
    for domain, path in reward.conditions.items():
        if not is_remote(path) and not (draft.root / path).is_file():
            where = draft.value_at("alignment", "reward", "conditions", domain)
            yield Diagnostic("TW262", f"there is no file `{path}`", where, "relative paths start at the spec's folder")
    if reward.gate is not None and draft.spec.data.held_out == 0:
        message = "the gate asks for accuracy on held-out pairs, and `held_out` is 0"
        where = draft.value_at("alignment", "reward", "gate")
        label = draft.label("nothing is held out", "data", "held_out")
        yield Diagnostic("TW253", message, where, "hold out a share: `held_out = 0.01` is the default", label)


def _ppo(draft: Draft, ppo: Ppo) -> Iterator[Diagnostic]:
    if draft.spec.alignment.reward is None:
        message = "PPO needs a reward model, and there is no `[alignment.reward]`"
        where = draft.key_at("alignment", "ppo")
        yield Diagnostic("TW261", message, where, "add one, or train on the preferences directly: `[alignment.dpo]`")
    if ppo.queries_per_iteration % ppo.mini_batches:
        yield Diagnostic(
            "TW308",
            f"{ppo.queries_per_iteration:,} answers are not divisible by `mini_batches` {ppo.mini_batches:,}",
            draft.value_at("alignment", "ppo", "mini_batches"),
            "take a divisor",
        )
    yield from _online(draft, ppo)


def _online(draft: Draft, ppo: Ppo) -> Iterator[Diagnostic]:
    labeller = ppo.online.labeller
    path = ("alignment", "ppo", "online", "labeller")
    if labeller is not None:
        if (labeller.command is None) == (labeller.endpoint is None):
            says = "neither a program nor an endpoint" if labeller.command is None else "both a program and an endpoint"
            message = f"the labeller is {says}"
            yield Diagnostic("TW264", message, draft.value_at(*path), "write `command` or `endpoint`")
        for key in ("model", "api_key"):
            if labeller.endpoint is None and getattr(labeller, key) is not None:
                message = f"`{key}` does nothing without an `endpoint`"
                yield Diagnostic("TW264", message, draft.key_at(*path, key), "take it out")
    if rounds_of(draft) > 1 and labeller is None and ppo.online.labels is None:
        yield Diagnostic(
            "TW267",
            f"{rounds_of(draft):,} rounds, and nothing labels what the policy learns to exploit",
            draft.value_at("alignment", "ppo", "rounds") or draft.key_at("alignment", "ppo"),
            "a later reward model will then know no more than the first: name a `labeller`, or label the candidates "
            "that each round writes, put the files where `labels` points, and run again",
            severity="warning",
        )


def _named(names: list[str]) -> str:
    return " or ".join(f"`{name}`" for name in names)


CHECK_ALIGNMENT = Check(
    check_alignment,
    needs=(
        "spec.alignment",
        "spec.data",
        "spec.phases",
        "spec.tokenizer",
        "names are sound",
        "references are sound",
    ),
    holds="alignment is sound",
)
