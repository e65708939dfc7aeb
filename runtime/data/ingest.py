"""Raw files -> documents: read in parallel, exact duplicates dropped, a share held out.

Twice over the data. First each group of files becomes a shard of documents, and their digests go to this process,
which then knows which document is the first with its text and which are held out. Then each shard is sorted into the
frames of its splits, which are appended in the order of the files. The number of workers changes no byte of it.
"""

import itertools
import math
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainwright.runtime.data.document import documents_path, encode, read_lines, write_lines
from trainwright.runtime.data.errors import DataError
from trainwright.runtime.data.files import source_files
from trainwright.runtime.data.parallel import ordered_map
from trainwright.runtime.data.records import Bad, digest, documents
from trainwright.runtime.data.repositories import join, reading_unit
from trainwright.runtime.data.split import DROPPED, HELD_OUT, TRAIN, Decisions, Digests, decide, first_occurrences
from trainwright.spec.files import SourceFile
from trainwright.spec.plan import IngestStage, SourcePlan

SPLITS = {"train": TRAIN, "held_out": HELD_OUT}
_GROUP_BYTES, _GROUP_FILES = 16 << 20, 512  # a task's size: small files share a shard, so that it compresses
_SHOWN = 5  # bad rows that are reported by place; all are counted


@dataclass(frozen=True)
class _ReadTask:
    source: SourcePlan
    files: tuple[SourceFile, ...]
    shard: Path


@dataclass
class _Shard:
    """The documents of a group of files, as they were read."""

    source: str
    path: Path
    files: int
    digests_D2: Digests
    bytes_D: NDArray[np.int64]
    bad: Counter[str]
    first_bad: list[str]


@dataclass(frozen=True)
class _SortTask:
    source: str
    shard: Path
    decisions_D: Decisions


def run(
    stage: IngestStage, *, root: Path, inputs: dict[str, Path], out: Path, progress: Callable[[str], None]
) -> dict[str, object]:
    """`out/documents` holds `<source>.train.jsonl.zst` and `<source>.held_out.jsonl.zst` of every source.

    Returns counts per source: files, documents, bytes of UTF-8 text, duplicates by the source of the first, and rows
    that are no documents with the places of the first ones. Raises DataError.
    """
    parts = out / ".parts"
    parts.mkdir()
    (out / "documents").mkdir()
    shards = _read(stage, root, parts, progress)
    digests_D2 = np.concatenate([shard.digests_D2 for group in shards.values() for shard in group])
    owners_D = np.repeat(np.arange(len(shards)), [sum(len(s.bytes_D) for s in group) for group in shards.values()])
    first_D = first_occurrences(digests_D2)
    decisions: dict[str, Decisions] = {}
    summary: dict[str, object] = {}
    for index, (name, group) in enumerate(shards.items()):
        mine = np.flatnonzero(owners_D == index)
        unique = first_D[mine] == mine
        decisions[name] = decide(digests_D2[mine], unique, stage.held_out, stage.seed)
        twins = Counter(stage.sources[owner].name for owner in owners_D[first_D[mine[~unique]]])
        summary[name] = _counts(group, decisions[name]) | {"duplicates": dict(sorted(twins.items()))}
    _sort(shards, decisions, out, stage.workers)
    shutil.rmtree(parts)
    return {"sources": summary}


def _read(stage: IngestStage, root: Path, parts: Path, progress: Callable[[str], None]) -> dict[str, list[_Shard]]:
    """Every source's shards up to its `max_size_bytes`: the document that reaches it is the last."""
    files = {source.name: source_files(source, root) for source in stage.sources}  # all, before anything is read
    limits = {source.name: source.max_size_bytes or math.inf for source in stage.sources}
    sizes = dict.fromkeys(files, 0)
    shards: dict[str, list[_Shard]] = {name: [] for name in files}

    def tasks() -> Iterator[_ReadTask]:
        for source in stage.sources:
            for index, group in enumerate(_groups(source, files[source.name])):
                if sizes[source.name] < limits[source.name]:
                    yield _ReadTask(source, group, parts / f"{source.name}.{index:06d}")

    for shard in ordered_map(_read_group, tasks(), stage.workers):
        name = shard.source
        if sizes[name] >= limits[name]:
            continue  # read ahead of the result that filled the source
        before = sizes[name] + np.cumsum(shard.bytes_D) - shard.bytes_D
        wanted = int(np.count_nonzero(before < limits[name]))
        shard.digests_D2, shard.bytes_D = shard.digests_D2[:wanted], shard.bytes_D[:wanted]
        sizes[name] += int(shard.bytes_D.sum())
        shards[name].append(shard)
    for name, group in shards.items():
        _tell(name, group, sizes[name], progress)
    return shards


def _tell(name: str, shards: list[_Shard], size_bytes: int, progress: Callable[[str], None]) -> None:
    count = sum(len(shard.bytes_D) for shard in shards)
    bad = sum(shard.bad.total() for shard in shards)
    if not count:
        places = [place for shard in shards for place in shard.first_bad]
        raise DataError(
            f"source `{name}` has no documents" + (f": {bad} rows are none, first {places[0]}" if bad else "")
        )
    told = f"; {bad:,} rows or files are none" if bad else ""
    progress(f"{name}: {count:,} documents, {size_bytes / 1e6:.1f} MB of text{told}")


def _groups(source: SourcePlan, files: list[SourceFile]) -> Iterator[tuple[SourceFile, ...]]:
    """Files that are read together; a repository's are, where repositories are joined."""
    if source.repository_bytes is not None:
        files = sorted(files, key=lambda file: (reading_unit(source, file), file.name))
    group: list[SourceFile] = []
    for file in files:
        full = sum(f.size_bytes for f in group) + file.size_bytes > _GROUP_BYTES or len(group) >= _GROUP_FILES
        if group and full and not _belong_together(source, group[-1], file):
            yield tuple(group)
            group = []
        group.append(file)
    yield tuple(group)


def _belong_together(source: SourcePlan, one: SourceFile, other: SourceFile) -> bool:
    return source.repository_bytes is not None and reading_unit(source, one) == reading_unit(source, other)


def _read_group(task: _ReadTask) -> _Shard:
    limit = task.source.max_size_bytes or math.inf
    digests: list[bytes] = []
    sizes: list[int] = []
    bad: Counter[str] = Counter()
    first_bad: list[str] = []

    def lines() -> Iterator[bytes]:
        total = 0
        each = itertools.chain.from_iterable(documents(task.source, file) for file in task.files)
        for found in each if task.source.repository_bytes is None else join(each, task.source):
            if isinstance(found, Bad):
                bad[found.reason] += 1
                first_bad.extend([f"{found.where}: {found.reason}"] if len(first_bad) < _SHOWN else [])
                continue
            text = found.text.encode()
            digests.append(digest(text))
            sizes.append(len(text))
            yield encode(found)
            total += len(text)
            if total >= limit:
                return

    write_lines(task.shard, lines())
    digests_D2 = np.frombuffer(b"".join(digests), dtype="<u8").reshape(-1, 2)
    sizes_D = np.array(sizes, dtype=np.int64)
    return _Shard(task.source.name, task.shard, len(task.files), digests_D2, sizes_D, bad, first_bad)


def _sort(shards: dict[str, list[_Shard]], decisions: dict[str, Decisions], out: Path, workers: int) -> None:
    tasks = []
    for name, group in shards.items():
        ends = np.cumsum([len(shard.bytes_D) for shard in group])
        parts = np.split(decisions[name], ends[:-1])
        tasks += [_SortTask(name, shard.path, part) for shard, part in zip(group, parts, strict=True)]
    for task, _ in zip(tasks, ordered_map(_sort_shard, tasks, workers), strict=True):
        for split in SPLITS:
            with (
                _part(task.shard, split).open("rb") as part,
                documents_path(out, task.source, split).open("ab") as file,
            ):
                shutil.copyfileobj(part, file, 1 << 20)
            _part(task.shard, split).unlink()
        task.shard.unlink()


def _sort_shard(task: _SortTask) -> None:
    for split, number in SPLITS.items():
        # A shard may hold more than what was decided on: the source was full before its end.
        pairs = zip(task.decisions_D, read_lines(task.shard), strict=False)
        write_lines(_part(task.shard, split), (line[:-1] for decision, line in pairs if decision == number))


def _part(shard: Path, split: str) -> Path:
    return shard.with_name(f"{shard.name}.{split}")


def _counts(shards: list[_Shard], decisions: Decisions) -> dict[str, object]:
    sizes = np.concatenate([shard.bytes_D for shard in shards])
    bad = sum((shard.bad for shard in shards), Counter())
    counts: dict[str, object] = {"files": sum(shard.files for shard in shards)}
    for split, number in SPLITS.items():
        chosen = decisions == number
        counts[split] = {"documents": int(chosen.sum()), "bytes": int(sizes[chosen].sum())}
    counts["dropped_bytes"] = int(sizes[decisions == DROPPED].sum())
    counts["bad_rows"] = dict(sorted(bad.items()))
    counts["first_bad_rows"] = [place for shard in shards for place in shard.first_bad][:_SHOWN]
    return counts
