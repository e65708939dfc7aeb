"""Which local files a source means by its path and globs: the compiler digests them, the runtime reads them."""

import glob as globbing
import os
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trainwright.spec.globs import selected

STDLIB = "python://stdlib"
_FOREIGN = frozenset({"site-packages", "dist-packages", "__pycache__"})
_ARCHIVES = (".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")
_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


@dataclass(frozen=True)
class SourceFile:
    """A file: where to open it, its name relative to the source, and its size (0 if the store does not tell)."""

    location: str  # a local path, or an fsspec URL
    name: str
    size_bytes: int


def is_remote(path: str) -> bool:
    """True of a URL that is not the running Python's own library: nobody looks at it while compiling."""
    return _REMOTE.match(path) is not None and not path.startswith("python://")


def is_archive(name: str) -> bool:
    """Whether the file holds several files (tar, compressed or not)."""
    return name.lower().endswith(_ARCHIVES)


def local_files(root: Path, path: str, include: tuple[str, ...], exclude: tuple[str, ...]) -> list[SourceFile]:
    """The files of a local source, sorted by their relative names; none if nothing is there or nothing is left.

    A relative path starts at `root`. What begins with a dot is left out, as shells do.
    """
    return selection(_found(root, path), include, exclude)


def selection(files: list[SourceFile], include: tuple[str, ...], exclude: tuple[str, ...]) -> list[SourceFile]:
    """The files that the globs select, sorted by name. An archive's members are selected when it is read."""
    if not (len(files) == 1 and is_archive(files[0].name)):
        files = [file for file in files if selected(file.name, include, exclude)]
    return sorted(files, key=lambda file: file.name)


def fixed_folder(pattern: str) -> Path:
    """The folder before a glob's first wild card: names are relative to it."""
    fixed = []
    for part in Path(pattern).parts[:-1]:
        if globbing.has_magic(part):
            break
        fixed.append(part)
    return Path(*fixed)


def _found(root: Path, path: str) -> list[SourceFile]:
    if path == STDLIB:
        return list(_walk(Path(sysconfig.get_path("stdlib")), suffix=".py"))
    place = root / path
    if place.is_dir():
        return list(_walk(place))
    if place.is_file():
        return [_file(place, place.parent)]
    if globbing.has_magic(path):
        base = fixed_folder(str(place))
        matches = (Path(match) for match in globbing.iglob(str(place), recursive=True))
        return [_file(match, base) for match in matches if match.is_file()]
    return []


def _walk(folder: Path, suffix: str = "") -> Iterator[SourceFile]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name[0] != "." and name not in _FOREIGN]
        for name in names:
            file = Path(parent, name)
            if name[0] != "." and name.endswith(suffix) and file.is_file():
                yield _file(file, folder)


def _file(file: Path, base: Path) -> SourceFile:
    return SourceFile(str(file), file.relative_to(base).as_posix(), file.stat().st_size)
