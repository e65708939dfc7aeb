"""Mixtures are over what exists, come to an end, and weigh something."""

from collections.abc import Iterator

from trainwright.compiler.draft import Check, Draft
from trainwright.compiler.nearest import nearest_name
from trainwright.spec.diagnostics import Diagnostic


def check_mixtures(draft: Draft) -> Iterator[Diagnostic]:
    data = draft.spec.data
    for name, weights in data.mixtures.items():
        where = draft.key_at("data", "mixtures", name)
        if name in data.sources:
            message = f"`{name}` is both a source and a mixture, so a weight for it could mean either"
            yield Diagnostic("TW225", message, where, "rename one of the two")
        for member in weights:
            if member not in data.sources and member not in data.mixtures:
                message = f"mixture `{name}` names `{member}`, which is neither a source nor a mixture"
                known = [*data.sources, *(other for other in data.mixtures if other != name)]
                span = draft.key_at("data", "mixtures", name, member)
                yield Diagnostic("TW220", message, span, nearest_name(member, known))
        if not any(weights.values()):
            message = f"mixture `{name}` weighs nothing"
            yield Diagnostic("TW222", message, where, "give at least one source a weight above zero")
    yield from _cycles(draft)


def _cycles(draft: Draft) -> Iterator[Diagnostic]:
    """One report a cycle, at the weight that closes it."""
    sources = draft.spec.data.sources  # a name of both was reported already
    mixtures = {name: weights for name, weights in draft.spec.data.mixtures.items() if name not in sources}
    done: set[str] = set()

    def walk(name: str, chain: tuple[str, ...]) -> Iterator[Diagnostic]:
        for member in mixtures[name]:
            if member in (*chain, name):
                circle = [*chain, name, member][[*chain, name].index(member) :]
                message = f"mixture `{member}` contains itself: {' -> '.join(circle)}"
                span = draft.key_at("data", "mixtures", name, member)
                yield Diagnostic("TW221", message, span, f"take `{member}` out of `{name}`")
            elif member in mixtures and member not in done:
                yield from walk(member, (*chain, name))
        done.add(name)

    for name in mixtures:
        if name not in done:
            yield from walk(name, ())


CHECK_MIXTURES = Check(check_mixtures, needs=("spec.data",), holds="mixtures are sound")
