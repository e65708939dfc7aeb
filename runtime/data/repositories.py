"""Repositories as long documents: every file after those it imports, as InternLM2 trained on them.

arXiv 2403.17297: section 3.1.2 (order by imports, notes before the code of their folder, a cycle begins with the
alphabetically first file) and 4.3 (files are put together up to a length; the one that goes beyond it is left out and
the document closed). What follows it begins the next document.
"""

import posixpath
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath

import networkx

from trainwright.runtime.data.document import Document
from trainwright.runtime.data.errors import DataError
from trainwright.runtime.data.imports import imports
from trainwright.runtime.data.records import Bad, digest, is_json_lines
from trainwright.spec.files import SourceFile, is_archive
from trainwright.spec.plan import SourcePlan

_NOTES = frozenset({".md", ".rst", ".txt", ".markdown"})
_SLASHES = frozenset({".c", ".h", ".cc", ".cpp", ".cxx", ".hh", ".hpp", ".cu", ".cuh", ".js", ".mjs", ".cjs", ".jsx"})
_SLASHES |= frozenset({".ts", ".tsx", ".java", ".go", ".rs", ".swift", ".kt", ".scala", ".cs", ".php", ".proto"})
_ANGLES = frozenset({".md", ".markdown", ".html", ".xml", ".vue"})


def reading_unit(source: SourcePlan, file: SourceFile) -> str:
    """Files with the same one must be read together: they hold one repository. JSON lines name theirs themselves."""
    if is_json_lines(source, file.name):
        return file.name
    return repository(f"{file.name}/" if is_archive(file.name) else file.name)


def repository(name: str) -> str:
    """The repository of a file by its name in the source: the first folder or archive, "" for a file in none."""
    folder, slash, _ = name.partition("/")
    return folder if slash else ""


def join(found: Iterable[Document | Bad], source: SourcePlan) -> Iterator[Document | Bad]:
    """One document after the other of every repository, up to `source.repository_bytes` of UTF-8 each.

    Files that are left out are told as Bad. Raises DataError if a repository's files are not next to one another.
    """
    current: str | None = None
    files: dict[str, Document] = {}
    done: set[str] = set()
    for each in found:
        if isinstance(each, Bad):
            yield each
            continue
        name, path = _place(each)
        if name != current:
            if current is not None:
                yield from _joined(current, files, source)
                done.add(current)
            if name in done:
                raise DataError(f"source `{source.name}`: the files of repository `{name}` are not next to one another")
            current, files = name, {}
        if path in files:
            yield Bad("twice in its repository", f"{name}/{path}")
        else:
            files[path] = each
    if current is not None:
        yield from _joined(current, files, source)


def _place(document: Document) -> tuple[str, str]:
    """The repository, and the path in it."""
    path = document.path or ""
    if document.repository is not None:
        return document.repository, path
    name = repository(path)
    return name, path.removeprefix(f"{name}/")


def _joined(name: str, files: Mapping[str, Document], source: SourcePlan) -> Iterator[Document | Bad]:
    texts = {path: document.text for path, document in files.items()}
    number = 0
    for text in _filled(texts, order(texts), source.repository_bytes or 0):
        if isinstance(text, str):
            id_ = digest(f"{source.name}\0{name}\0{number}".encode()).hex()
            yield Document(id_, source.name, source.language, source.kind, text, path=name or None)
            number += 1
        else:
            yield Bad(text.reason, f"{name}/{text.where}")


def order(texts: Mapping[str, str]) -> list[str]:
    """The paths of a repository's files: each after all it imports, depth first, equals by name.

    Files that import each other in a circle stand together, by name. Notes stand before the first code of their folder,
    and those of folders without code at the beginning.
    """
    code = sorted(path for path in texts if _suffix(path) not in _NOTES)
    notes = sorted(set(texts) - set(code))
    graph = networkx.DiGraph()
    graph.add_nodes_from(code)
    known = frozenset(code)
    graph.add_edges_from((path, other) for path in code for other in sorted(imports(path, texts[path], known)))
    circles = {min(members): sorted(members) for members in networkx.strongly_connected_components(graph)}
    head = {path: first for first, members in circles.items() for path in members}
    acyclic = networkx.DiGraph()
    acyclic.add_nodes_from(sorted(circles))
    acyclic.add_edges_from((head[a], head[b]) for a, b in graph.edges if head[a] != head[b])
    firsts = networkx.dfs_postorder_nodes(acyclic, sort_neighbors=sorted)
    return _with_notes([path for first in firsts for path in circles[first]], notes)


def _with_notes(code: list[str], notes: list[str]) -> list[str]:
    folders = {posixpath.dirname(path) for path in code}
    by_folder: dict[str, list[str]] = {}
    for path in notes:
        by_folder.setdefault(posixpath.dirname(path), []).append(path)
    placed = [path for path in notes if posixpath.dirname(path) not in folders]
    for path in code:
        placed += by_folder.pop(posixpath.dirname(path), [])
        placed.append(path)
    return placed


def _filled(texts: Mapping[str, str], paths: Iterable[str], limit_bytes: int) -> Iterator[str | Bad]:
    parts: list[str] = []
    size = 0
    for path in paths:
        part = _headed(path, texts[path])
        length = len(part.encode())
        if size + length <= limit_bytes:
            parts.append(part)
            size += length + 1
            continue
        if parts:
            yield "\n".join(parts)
        parts, size = [], 0
        yield Bad("beyond the length of its repository's document", path)
    if parts:
        yield "\n".join(parts)


def _headed(path: str, text: str) -> str:
    """The file under a comment with its name, and a newline at its end."""
    suffix = _suffix(path)
    before, after = ("// ", "") if suffix in _SLASHES else ("<!-- ", " -->") if suffix in _ANGLES else ("# ", "")
    return f"{before}{path}{after}\n{text}" + ("" if text.endswith("\n") else "\n")


def _suffix(path: str) -> str:
    return PurePosixPath(path).suffix.lower()
