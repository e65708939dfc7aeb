"""Looking at the text a spec names: which local files it is, how much, and a digest of their content."""

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainwright.spec.files import STDLIB, SourceFile, is_remote, local_files
from trainwright.spec.plan import SourcePlan
from trainwright.spec.spec import Source

AnySource = Source | SourcePlan

# Reading all of a large corpus would make `plan` take minutes, so content is read up to this much, in the order of
# the paths; of each file beyond it, only the size and both ends. A change in the middle of such a file that keeps its
# size is not seen.
WHOLE_BYTES = 256 << 20
END_BYTES = 64 << 10

# Of text that nobody has tokenised, and of the JSON of conversations; ours.
BYTES_PER_TOKEN = 4.0
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".tgz", ".tbz2", ".txz", ".parquet")


@dataclass(frozen=True)
class Found:
    """The local files of a source."""

    files: int
    size_bytes: int
    digest: str
    compressed: bool  # any of them: then their size does not tell how much text they hold


def look_at(root: Path, source: AnySource) -> Found | None:
    """What a source holds right now; None if it is remote."""
    if is_remote(source.path):
        return None
    files = local_files(root, source.path, source.include, source.exclude)
    return digest_stdlib(files) if source.path == STDLIB else digest_files(files)


def expected_tokens(source: Source, found: Found | None) -> float | None:
    """About how many tokens the source holds: what it states, or by the size of its files; None: nobody can tell."""
    if source.tokens is not None or found is None or found.compressed:
        return source.tokens
    return min(found.size_bytes, source.max_size or found.size_bytes) / BYTES_PER_TOKEN


def digest_files(files: Sequence[SourceFile]) -> Found:
    """Number, size and digest of the files: of their names in the source and their content (see WHOLE_BYTES)."""
    digest = hashlib.blake2b(digest_size=16)
    total = 0
    for found in files:
        total += found.size_bytes
        digest.update(f"{found.name}\0{found.size_bytes}\0".encode())
        with open(found.location, "rb") as file:
            if total <= WHOLE_BYTES:
                digest.update(file.read())
            else:
                digest.update(file.read(END_BYTES))
                file.seek(max(0, found.size_bytes - END_BYTES))
                digest.update(file.read(END_BYTES))
    return Found(len(files), total, digest.hexdigest(), _any_compressed(files))


def digest_stdlib(files: Sequence[SourceFile]) -> Found:
    """As `digest_files`, but a release's own library is known by its version and the files' sizes."""
    digest = hashlib.blake2b(sys.version.encode(), digest_size=16)
    for found in files:
        digest.update(f"{found.name}\0{found.size_bytes}\0".encode())
    return Found(len(files), sum(found.size_bytes for found in files), digest.hexdigest(), compressed=False)


def _any_compressed(files: Sequence[SourceFile]) -> bool:
    return any(file.name.lower().endswith(_COMPRESSED) for file in files)
