"""What the sources that some stage reads hold right now."""

from trainwright.compiler.draft import Draft, Pass
from trainwright.compiler.sources import Found, digest_files, expected_tokens, look_at
from trainwright.spec.files import is_remote, local_files
from trainwright.spec.plan import SourcePlan
from trainwright.spec.spec import Source


def digest_sources(draft: Draft) -> None:
    """Remote sources are not looked at: number, size and digest stay unknown, and the path stands for the content."""
    spec = draft.spec
    read = {source for phase in spec.phases for source in draft.mixtures[phase.mixture]}
    read |= _aligned(draft)
    read |= {source for evaluation in spec.evaluation for source in evaluation.sources}
    if spec.tokenizer.train is not None and spec.tokenizer.train.mixture is not None:
        read |= set(draft.mixtures[spec.tokenizer.train.mixture])
    found = {name: look_at(draft.root, spec.data.sources[name]) for name in sorted(read)}
    draft.sources = {name: _plan(name, spec.data.sources[name], each) for name, each in found.items()}
    draft.expected_tokens = {name: expected_tokens(spec.data.sources[name], each) for name, each in found.items()}
    path = spec.tokenizer.path
    draft.tokenizer_digest = None
    if path is not None and not is_remote(path):
        draft.tokenizer_digest = digest_files(local_files(draft.root, path, (), ())).digest


def _aligned(draft: Draft) -> set[str]:
    """What alignment reads: conversations, and text that is mixed in."""
    alignment = draft.spec.alignment
    names = {name for table in (alignment.sft, alignment.reward, alignment.dpo) if table for name in table.data}
    mixtures = []
    if alignment.sft is not None and alignment.sft.long_data is not None:
        mixtures.append(alignment.sft.long_data.mixture)
    if alignment.ppo is not None:
        names.add(alignment.ppo.queries)
        if alignment.ppo.pretrain is not None:
            mixtures.append(alignment.ppo.pretrain.mixture)
    return names | {source for mixture in mixtures for source in draft.mixtures[mixture]}


def _plan(name: str, source: Source, found: Found | None) -> SourcePlan:
    return SourcePlan(
        name=name,
        path=source.path,
        kind=source.kind,
        language=source.language,
        license=source.license,
        format=source.format,
        text_key=source.text_key,
        include=source.include,
        exclude=source.exclude,
        max_size_bytes=source.max_size,
        repository_bytes=source.join_size if source.join == "repository" else None,
        files=found.files if found else None,
        size_bytes=found.size_bytes if found else None,
        digest=found.digest if found else None,
    )


DIGEST_SOURCES = Pass(
    digest_sources,
    needs=(
        "spec.alignment",
        "spec.data",
        "spec.evaluation",
        "spec.phases",
        "spec.tokenizer",
        "mixtures",
        "named mixtures are there",
        "references are sound",
        "tokenizer is sound",
        "sources are there",
    ),
    gives=("sources", "expected_tokens", "tokenizer_digest"),
)
