"""Looking at the text a spec names: which local files it is, how much, and a digest of their content."""

import glob
import hashlib
import re
import sys
import sysconfig
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
    """The folder the files lie in and their paths in it, sorted; none if nothing matches.

    `include` and `exclude` are globs relative to a folder. Hidden files and `__pycache__` are no text of anybody's.
    """
    path = Path(sysconfig.get_paths()["stdlib"]) if source.path == STDLIB else root / source.path
    if path.is_file():
        return path.parent, [path.name]
    if path.is_dir():
        names = _matches(path, source.include or ("**",)) - _matches(path, source.exclude)
        return path, sorted(names)
    folder, pattern = (
        (Path(path.anchor), str(path.relative_to(path.anchor))) if path.is_absolute() else (root, str(path))
    )
    return folder, sorted(_matches(folder, (pattern,)))


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


def _matches(folder: Path, patterns: tuple[str, ...]) -> set[str]:
    found: set[str] = set()
    for pattern in patterns:
        found.update(glob.iglob(pattern, root_dir=folder, recursive=True))
    return {name for name in found if "__pycache__" not in name and (folder / name).is_file()}
