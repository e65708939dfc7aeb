"""What a plan was made from, and whether that is still so: its text, its tokenizer, its spec and its compiler."""

import hashlib
import os
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from trainwright import __version__
from trainwright.compiler.sources import digest_files, look_at
from trainwright.spec.files import local_files
from trainwright.spec.plan import IngestStage, Plan, TokenizerStage

COMPILER = f"trainwright {__version__}"


def stale_inputs(plan: Plan, root: Path) -> list[str]:
    """A sentence for each input whose content is not what the plan was made from. `root` is the spec's folder.

    Remote inputs are not looked at.
    """
    return [*_texts(plan, root), *_tokenizers(plan, root)]


def stale_compiler(plan: Plan) -> str | None:
    """A sentence if another version of the compiler made the plan: what it meant by it may differ from ours."""
    return f"it was made by {plan.compiler}, this is {COMPILER}" if plan.compiler != COMPILER else None


def stale_specs(plan: Plan, root: Path) -> list[str]:
    """The files of the plan's spec whose values changed since. A file that is gone cannot tell: it is left out."""
    return [
        name
        for name, digest in plan.spec_files.items()
        if (root / name).is_file() and _digest_values(root / name) != digest
    ]


def digest_specs(files: Sequence[Path], root: Path) -> dict[str, str]:
    """Files relative to `root` -> digest of their values."""
    return {Path(os.path.relpath(file, root.resolve())).as_posix(): _digest_values(file) for file in files}


def _texts(plan: Plan, root: Path) -> Iterator[str]:
    for source in (source for stage in plan.stages if isinstance(stage, IngestStage) for source in stage.sources):
        found = look_at(root, source)
        if found is not None and found.digest != source.digest:
            yield f"the text of `{source.name}` changed"


def _tokenizers(plan: Plan, root: Path) -> Iterator[str]:
    for stage in plan.stages:
        if isinstance(stage, TokenizerStage) and stage.path is not None and stage.digest is not None:
            found = digest_files(local_files(root, stage.path, (), ()))
            if found.files == 0:
                yield f"the tokenizer `{stage.path}` is gone"
            elif found.digest != stage.digest:
                yield f"the tokenizer `{stage.path}` changed"


def _digest_values(file: Path) -> str:
    """Of what the TOML says: comments and layout do not count. Of the bytes, if they are no TOML any more."""
    data = file.read_bytes()
    with suppress(UnicodeDecodeError, tomllib.TOMLDecodeError):
        data = msgspec.json.encode(tomllib.loads(data.decode()), order="sorted")
    return hashlib.blake2b(data, digest_size=16).hexdigest()
