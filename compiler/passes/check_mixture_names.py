"""Whoever names a mixture names one that exists."""

from collections.abc import Iterator

from trainwright.compiler.draft import Check, Draft
from trainwright.compiler.nearest import nearest_name
from trainwright.spec.diagnostics import Diagnostic, KeyPath, display


def check_mixture_names(draft: Draft) -> Iterator[Diagnostic]:
    data = draft.spec.data
    for path, wanted in _named(draft):
        if wanted not in data.mixtures:
            message = f"`{display(path)}` names `{wanted}`, which is not a mixture of `[data.mixtures]`"
            known = list(data.mixtures)
            cure = nearest_name(wanted, known)
            if wanted in data.sources:
                cure = (
                    f"it is a source: write `{wanted}-only = {{ {wanted} = 1 }}` under `[data.mixtures]` and name that"
                )
            yield Diagnostic("TW223", message, draft.value_at(*path), cure)


def _named(draft: Draft) -> Iterator[tuple[KeyPath, str]]:
    """Every place outside `[data]` that names a mixture."""
    spec = draft.spec
    for index, phase in enumerate(spec.phases):
        yield ("phases", index, "mixture"), phase.mixture
    if spec.tokenizer.train is not None and spec.tokenizer.train.mixture is not None:
        yield ("tokenizer", "train", "mixture"), spec.tokenizer.train.mixture
    if spec.alignment.sft is not None and spec.alignment.sft.long_data is not None:
        yield ("alignment", "sft", "long_data", "mixture"), spec.alignment.sft.long_data.mixture
    if spec.alignment.ppo is not None and spec.alignment.ppo.pretrain is not None:
        yield ("alignment", "ppo", "pretrain", "mixture"), spec.alignment.ppo.pretrain.mixture


CHECK_MIXTURE_NAMES = Check(
    check_mixture_names,
    needs=("spec.alignment", "spec.data", "spec.phases", "spec.tokenizer"),
    holds="named mixtures are there",
)
