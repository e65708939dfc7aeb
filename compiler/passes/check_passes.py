"""No source is read so often that nothing is left to be learnt from it."""

from collections.abc import Iterator

from trainwright.compiler.draft import Check, Draft
from trainwright.spec.diagnostics import Diagnostic

# Muennighoff et al. 2023 (arXiv 2305.16264): 4 passes are nearly as good as new text, and beyond about 16 each further
# one gives little.
_MOST = 16
_TRIAL_BYTES = 64 << 10  # what is smaller stands in for text that is elsewhere


def check_passes(draft: Draft) -> Iterator[Diagnostic]:
    for name, source in draft.spec.data.sources.items():
        passes = sum(phase.get(name, 0.0) for phase in draft.passes.values())
        if passes > _MOST and (source.tokens is not None or (draft.sources[name].size_bytes or 0) >= _TRIAL_BYTES):
            of = "" if len(draft.passes) == 1 else " over all phases"
            by = "as it states" if source.tokens is not None else "by the size of its files"
            message = f"`{name}` is read about {passes:,.0f} times{of}, {by}"
            cure = "lower its share or add to it: beyond about 16 times nothing much is learnt"
            if source.tokens is None:
                cure += "; state its `tokens` if they are more"
            yield Diagnostic("TW336", message, draft.key_at("data", "sources", name), cure, severity="warning")


CHECK_PASSES = Check(check_passes, needs=("passes", "sources", "spec.data"), holds="sources are large enough")
