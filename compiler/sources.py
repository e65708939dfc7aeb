"""Looking at the text a spec names: which local files it is, how much, and a digest of their content."""

import glob
import hashlib
import os
import re
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trainwright.spec.plan import SourcePlan
from trainwright.spec.spec import Source

AnySource = Source | SourcePlan
STDLIB = "python://stdlib"

# Reading all of a large corpus would make `plan` take minutes, so content is read up to this much, in the order of
# the paths; of each file beyond it, only the size and both ends. A change in the middle of such a file that keeps its
# size is not seen.
WHOLE_BYTES = 256 << 20
END_BYTES = 64 << 10

_FOREIGN = frozenset({"site-packages", "dist-packages", "__pycache__"})
_ARCHIVES = (".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")
_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


@dataclass(frozen=True)
class Found:
    """The local files of a source."""

    files: int
    size_bytes: int
    digest: str


def is_remote(path: str) -> bool:
    """True of a URL that is not the running Python's own library: nobody looks at it while compiling."""
    return _REMOTE.match(path) is not None and not path.startswith("python://")


def list_files(root: Path, source: AnySource) -> tuple[Path, list[str]]:
    """The folder the files lie in and their paths in it, sorted; none if nothing matches. The runtime reads the same.

    `include` and `exclude` are globs relative to that folder; an archive is taken whole, they select its members.
    """
    path = root / source.path
    if source.path == STDLIB:
        folder = Path(sysconfig.get_path("stdlib"))
        names = set(_walk(folder, suffix=".py"))
    elif path.is_dir():
        folder, names = path, set(_walk(path))
    elif path.is_file():
        folder, names = path.parent, {path.name}
        if path.name.lower().endswith(_ARCHIVES):
            return folder, [path.name]
    else:
        folder = _fixed_folder(path)
        names = _matches(folder, (path.relative_to(folder).as_posix(),))
    if source.include:
        names &= _matches(folder, source.include)
    return folder, sorted(names - _matches(folder, source.exclude))


def look_at(root: Path, source: AnySource) -> Found | None:
    """What a source holds right now; None if it is remote."""
    if is_remote(source.path):
        return None
    folder, names = list_files(root, source)
    return digest_stdlib(folder, names) if source.path == STDLIB else digest_files(folder, names)


def digest_files(folder: Path, names: list[str]) -> Found:
    """Number, size and digest of the files: of their paths in the folder and their content (see WHOLE_BYTES)."""
    digest = hashlib.blake2b(digest_size=16)
    total = 0
    for name in names:
        path = folder / name
        size = path.stat().st_size
        total += size
        digest.update(f"{name}\0{size}\0".encode())
        with path.open("rb") as file:
            if total <= WHOLE_BYTES:
                digest.update(file.read())
            else:
                digest.update(file.read(END_BYTES))
                file.seek(max(0, size - END_BYTES))
                digest.update(file.read(END_BYTES))
    return Found(files=len(names), size_bytes=total, digest=digest.hexdigest())


def digest_stdlib(folder: Path, names: list[str]) -> Found:
    """As `digest_files`, but a release's own library is known by its version and the files' sizes."""
    digest = hashlib.blake2b(sys.version.encode(), digest_size=16)
    total = 0
    for name in names:
        size = (folder / name).stat().st_size
        total += size
        digest.update(f"{name}\0{size}\0".encode())
    return Found(files=len(names), size_bytes=total, digest=digest.hexdigest())


def _walk(folder: Path, suffix: str = "") -> Iterator[str]:
    """Hidden files, caches and other people's packages are no text of this source."""
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name[0] != "." and name not in _FOREIGN]
        inner = Path(parent).relative_to(folder)
        yield from ((inner / name).as_posix() for name in names if name[0] != "." and name.endswith(suffix))


def _fixed_folder(pattern: Path) -> Path:
    """The folder before a glob's first wild card."""
    wild = next((index for index, part in enumerate(pattern.parts) if glob.has_magic(part)), len(pattern.parts) - 1)
    return Path(*pattern.parts[:wild])


def _matches(folder: Path, patterns: tuple[str, ...]) -> set[str]:
    found = (name for pattern in patterns for name in glob.iglob(pattern, root_dir=folder, recursive=True))
    return {Path(name).as_posix() for name in found if (folder / name).is_file()}
