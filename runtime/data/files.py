"""The files that a source consists of, local or in a remote store, in an order that every machine agrees on."""

import glob as globbing
from pathlib import Path
from typing import Any

from trainwright.runtime.data.errors import DataError
from trainwright.spec.files import SourceFile, fixed_folder, is_remote, local_files, selection
from trainwright.spec.plan import SourcePlan


def source_files(source: SourcePlan, root: Path) -> list[SourceFile]:
    """The source's files, sorted by their relative names. Raises DataError if there is none."""
    if is_remote(source.path):
        files = selection(_remote(source), source.include, source.exclude)
    else:
        files = local_files(root, source.path, source.include, source.exclude)
    if not files:
        raise DataError(f"source `{source.name}`: there is no file at `{source.path}`, or none that is selected")
    return files


def _remote(source: SourcePlan) -> list[SourceFile]:
    try:
        from fsspec.core import url_to_fs  # type: ignore[import-untyped]
    except ImportError:
        raise DataError(f"source `{source.name}`: `{source.path}` needs `fsspec` (pip install fsspec)") from None
    try:
        store, path = url_to_fs(source.path)
        if globbing.has_magic(path):
            base, found = str(fixed_folder(path)), store.glob(path, detail=True)
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
