"""Every local source is there, what is joined by repository is code, and no key does nothing for its kind."""

from collections.abc import Iterator

from trainwright.compiler.draft import Check, Draft
from trainwright.spec.diagnostics import Diagnostic
from trainwright.spec.files import STDLIB, is_remote, local_files
from trainwright.spec.spec import Source

# Rows of the other kinds have forms of their own. `join` has a code of its own.
_OF_TEXT = ("format", "text_key", "recipe")
_PLAIN = Source(path="")


def check_sources(draft: Draft) -> Iterator[Diagnostic]:
    for name, source in draft.spec.data.sources.items():
        if source.join == "repository" and source.kind != "code":
            message = f"`{name}` is of kind `{source.kind}`, and only code is joined by repository"
            where = draft.value_at("data", "sources", name, "join")
            label = draft.label(f"of kind `{source.kind}`", "data", "sources", name, "kind")
            yield Diagnostic("TW226", message, where, 'write kind = "code", or take `join` out', labels=label)
        yield from _idle_keys(draft, name, source)
        where = draft.value_at("data", "sources", name, "path")
        if source.path.startswith("python://") and source.path != STDLIB:
            message = f"`{source.path}` is not a source of text that Python has"
            yield Diagnostic("TW224", message, where, f'write "{STDLIB}"')
        elif not is_remote(source.path):
            if local_files(draft.root, source.path, source.include, source.exclude):
                continue
            path = draft.root / source.path
            if path.exists():
                globs = " and ".join(f"`{key}`" for key in ("include", "exclude") if getattr(source, key))
                message = f"no file of `{source.path}` is left" + (f" by {globs}" if globs else ": the folder is empty")
            else:
                message = f"nothing matches `{source.path}`"
            yield Diagnostic("TW224", message, where, "relative paths start at the spec's folder")


def _idle_keys(draft: Draft, name: str, source: Source) -> Iterator[Diagnostic]:
    for key in _OF_TEXT:
        if source.kind not in ("text", "code") and getattr(source, key) != getattr(_PLAIN, key):
            message = f"`{key}` does nothing for a source of kind `{source.kind}`"
            where = draft.key_at("data", "sources", name, key)
            yield Diagnostic("TW227", message, where, "take it out: it is for text and code")
    if source.join == "none" and source.join_size != _PLAIN.join_size:
        where = draft.key_at("data", "sources", name, "join_size")
        yield Diagnostic(
            "TW227", "`join_size` does nothing without `join`", where, 'write join = "repository", or take it out'
        )


CHECK_SOURCES = Check(check_sources, needs=("spec.data",), holds="sources are there")
