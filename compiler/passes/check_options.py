"""Each evaluation has what its kind needs, nothing that does nothing for it, and asks once a stage that writes text."""

from collections.abc import Iterator

from trainwright.compiler.draft import Check, Draft
from trainwright.spec.diagnostics import Diagnostic

# Which keys say something for which kind; `kind`, `of` and `every` are for all.
_KEYS = {
    "perplexity": ("sources",),
    "samples": ("prompts", "max_tokens", "temperature", "top_p"),
    "needle": ("lengths",),
}
_NEEDED = {
    "samples": ("prompts", 'what to continue, for example `prompts = ["Once upon a time"]`'),
    "needle": ("lengths", 'context lengths, for example `lengths = ["4Ki", "32Ki"]`'),
}


def check_options(draft: Draft) -> Iterator[Diagnostic]:
    seen: set[tuple[str, str]] = set()
    for index, evaluation in enumerate(draft.spec.evaluation):
        kind = evaluation.kind
        for other, keys in _KEYS.items():
            for key in keys if other != kind else ():
                if getattr(evaluation, key) not in (None, ()):
                    yield Diagnostic(
                        "TW250",
                        f"`{key}` does nothing for an evaluation of kind `{kind}`",
                        draft.key_at("evaluation", index, key),
                        f"take it out, or make it an evaluation of kind `{other}`",
                    )
        if kind in _NEEDED and not getattr(evaluation, _NEEDED[kind][0]):
            key, cure = _NEEDED[kind]
            message = f"an evaluation of kind `{kind}` has no `{key}`"
            yield Diagnostic("TW251", message, draft.key_at("evaluation", index), f"add {cure}")
        if kind == "perplexity" and draft.spec.data.held_out == 0:
            message = "perplexity is measured on held-out documents, and `held_out` is 0"
            where = draft.value_at("evaluation", index, "kind")
            label = draft.label("nothing is held out", "data", "held_out")
            yield Diagnostic("TW253", message, where, "hold out a share: `held_out = 0.01` is the default", label)
        for place, name in enumerate(evaluation.of):
            if (kind, name) in seen:
                where = draft.value_at("evaluation", index, "of", place)
                message = f"`{name}` is evaluated by `{kind}` twice"
                yield Diagnostic("TW252", message, where, "put both into one `[[evaluation]]`")
            seen.add((kind, name))
            if name == "reward":
                where = draft.value_at("evaluation", index, "of", place)
                message = f"a reward model gives scores, and `{kind}` asks for text"
                yield Diagnostic("TW254", message, where, "take it out: its stage measures accuracy and calibration")


CHECK_OPTIONS = Check(
    check_options,
    needs=(
        "spec.data",
        "spec.evaluation",
    ),
    holds="evaluations are sound",
)
