"""Which files a source consists of, in an order that every machine agrees on."""

import glob as globbing
import os
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainwright.runtime.data.errors import DataError
from trainwright.runtime.data.globs import selected
from trainwright.spec.plan import SourcePlan

STDLIB = "python://stdlib"
_FOREIGN = frozenset({"site-packages", "dist-packages", "__pycache__"})

_ARCHIVES = (".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")


@dataclass(frozen=True)
class SourceFile:
    """A file: where to open it, its name relative to the source, and its size (0 if the store does not tell)."""

    location: str  # a local path, or an fsspec URL
    name: str
    size_bytes: int


def source_files(source: SourcePlan, root: Path) -> list[SourceFile]:
    """The source's files, sorted by their relative names; what begins with a dot is left out, as shells do.

    Relative paths start at `root`. Raises DataError if there is no such file or if no file is left.
    """
    if source.path == STDLIB:
        files = list(_walk(Path(sysconfig.get_path("stdlib")), suffix=".py"))
    elif "://" in source.path:
        files = _remote(source)
    else:
        files = _local(source, root)
    archive = len(files) == 1 and is_archive(files[0].name)
    if not archive:  # an archive's members are selected when it is read
        files = [file for file in files if selected(file.name, source.include, source.exclude)]
    if not files:
        raise DataError(f"source `{source.name}`: no file of `{source.path}` is selected by include and exclude")
    return sorted(files, key=lambda file: file.name)


def is_archive(name: str) -> bool:
    """Whether the file holds several files (tar, compressed or not)."""
    return name.lower().endswith(_ARCHIVES)


def _local(source: SourcePlan, root: Path) -> list[SourceFile]:
    path = root / source.path
    if path.is_dir():
        return list(_walk(path))
    if path.is_file():
        return [SourceFile(str(path), path.name, path.stat().st_size)]
    if globbing.has_magic(source.path):
        found = [Path(match) for match in globbing.glob(str(path), recursive=True)]
        base = _fixed_folder(str(path))
        files = [SourceFile(str(file), _relative(file, base), file.stat().st_size) for file in found if file.is_file()]
        if files:
            return files
        raise DataError(f"source `{source.name}`: no file matches `{path}`")
    raise DataError(f"source `{source.name}`: there is no file or folder `{path}`")


def _walk(folder: Path, suffix: str = "") -> Iterator[SourceFile]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name[0] != "." and name not in _FOREIGN]
        for name in names:
            file = Path(parent, name)
            if name[0] != "." and name.endswith(suffix) and file.is_file():
                yield SourceFile(str(file), _relative(file, folder), file.stat().st_size)


def _fixed_folder(pattern: str) -> Path:
    """The folder before a glob's first wild card: names are relative to it."""
    fixed = []
    for part in Path(pattern).parts[:-1]:
        if globbing.has_magic(part):
            break
        fixed.append(part)
    return Path(*fixed)


def _relative(file: Path, folder: Path) -> str:
    return file.relative_to(folder).as_posix()


def _remote(source: SourcePlan) -> list[SourceFile]:
    try:
        from fsspec.core import url_to_fs  # type: ignore[import-untyped]
    except ImportError:
        raise DataError(f"source `{source.name}`: `{source.path}` needs `fsspec` (pip install fsspec)") from None
    try:
        store, path = url_to_fs(source.path)
        if globbing.has_magic(path):
            base, found = str(_fixed_folder(path)), store.glob(path, detail=True)
        elif store.isdir(path):
            base, found = path, store.find(path, detail=True)
        else:
            base, found = path.rpartition("/")[0], {path: store.info(path)}
    except (OSError, ValueError, ImportError) as error:  # a missing file, an unknown scheme, a store's own package
        raise DataError(f"source `{source.name}`: cannot look at `{source.path}`: {error}") from None
    files = [_remote_file(store, name, info, base) for name, info in found.items() if info["type"] == "file"]
    return [file for file in files if not any(part[0] == "." for part in file.name.split("/"))]


def _remote_file(store: Any, path: str, info: dict[str, Any], base: str) -> SourceFile:
    name = path.removeprefix(base.rstrip("/")).lstrip("/")
    return SourceFile(store.unstrip_protocol(path), name, info.get("size") or 0)
