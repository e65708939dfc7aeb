"""The `conversations` stage: rows of kind `chat`, `preference` and `prompts` -> tokens, and a ledger of every row.

This process reads the files' lines and deals them out in batches; workers check and encode them. All of a source's
rows are written once, then laid down by split, as what is held out is known when all have been seen. The number of
workers changes no byte of it. R rows, L tokens of a row.
"""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from trainwright.runtime.align.data.chat import ACTION_END, ACTION_START, INTERPRETER, PLUGIN, TURN_END, TURN_START
from trainwright.runtime.align.data.encode import Encoded, encode_row
from trainwright.runtime.align.data.messages import BadRow, parse_row
from trainwright.runtime.align.data.rows import READERS, SPLITS, Kind, RowWriter
from trainwright.runtime.data.errors import DataError
from trainwright.runtime.data.files import source_files
from trainwright.runtime.data.inputs import holding
from trainwright.runtime.data.parallel import ordered_map
from trainwright.runtime.data.records import printable
from trainwright.runtime.data.split import HELD_OUT, TRAIN, Decisions, Digests, decide, first_occurrences
from trainwright.runtime.data.streams import members, reported
from trainwright.runtime.data.vocabulary import MODEL_FILE, Vocabulary
from trainwright.spec.files import is_archive
from trainwright.spec.globs import selected
from trainwright.spec.plan import ConversationsStage, SourcePlan

LEDGER_FILE, UNUSED_FILE = "ledger.json", "ledger.jsonl"
DUPLICATE = "duplicate"
_BATCH_BYTES = 1 << 20
_SHOWN = 5  # bad rows that an error names; the ledger names all


@dataclass(frozen=True)
class _Batch:
    """Lines of one file; `numbers` are theirs in it, from 1."""

    kind: str
    file: str
    numbers: list[int]
    lines: list[bytes]


@dataclass
class _Rows:
    """What is known of a source's usable rows besides their tokens, and its ledger."""

    ledger: dict[str, Any]
    writer: RowWriter
    keys: list[bytes] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    places: list[tuple[str, int]] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    trained: list[int] = field(default_factory=list)


def run(
    stage: ConversationsStage, *, root: Path, inputs: dict[str, Path], out: Path, progress: Callable[[str], None]
) -> dict[str, object]:
    """`out` holds the rows of every source and split (see `rows`), `ledger.json` and `ledger.jsonl`.

    `ledger.json` and the value returned under "sources": per source its rows, how many of them are used, held out,
    duplicates and skipped for which reasons, and the used rows' tokens. `ledger.jsonl`: each row that is not used, with
    its file, line and the reason. Raises DataError, also when more rows are bad than `stage.bad_rows` allows.
    """
    folder = holding(inputs, MODEL_FILE)
    vocabulary = Vocabulary(folder)
    for name in (TURN_START, TURN_END, ACTION_START, ACTION_END, PLUGIN, INTERPRETER):
        vocabulary.special(name)  # told before anything is read
    parts = out / ".parts"
    parts.mkdir()
    ledgers: dict[str, dict[str, Any]] = {}
    with (out / UNUSED_FILE).open("w", encoding="utf-8") as unused:
        for source in stage.sources:
            rows = _read(stage, source, root, folder, parts, unused)
            ledgers[source.name] = rows.ledger
            _lay_down(stage, source, rows, parts, out, unused)
            progress(_told(source.name, rows.ledger))
    shutil.rmtree(parts)
    (out / LEDGER_FILE).write_text(json.dumps(ledgers, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    return {"sources": ledgers}


def _read(
    stage: ConversationsStage, source: SourcePlan, root: Path, folder: Path, parts: Path, unused: IO[str]
) -> _Rows:
    """The source's usable rows in the order of its files, and what the others are. Raises DataError."""
    kind = cast(Kind, source.kind)
    rows = _Rows({"kind": kind, "rows": 0}, RowWriter(parts, source.name, "all", kind))
    skipped: Counter[str] = Counter()
    first_bad: list[str] = []
    batches = _batches(source, root)
    for batch, results in ordered_map(_encode, batches, stage.workers, _begin, (folder, stage.code_newline)):
        for number, result in zip(batch.numbers, results, strict=True):
            rows.ledger["rows"] += 1
            if isinstance(result, Encoded):
                _keep(rows, result, (batch.file, number))
                continue
            skipped[result.reason] += 1
            if len(first_bad) < _SHOWN:
                first_bad.append(f"{batch.file}:{number}: {result}")
            _write_unused(unused, source, (batch.file, number), result.reason, result.detail)
    rows.writer.finish()
    rows.ledger["skipped"] = dict(sorted(skipped.items()))
    bad, total = skipped.total(), rows.ledger["rows"]
    if bad > stage.bad_rows * total:
        more = f" ... (all in `{unused.name}`)" if bad > len(first_bad) else ""
        raise DataError(
            f"source `{source.name}`: {bad:,} of {total:,} rows cannot be used, and `chat.bad_rows` allows "
            f"{stage.bad_rows:.2%}: {'; '.join(first_bad)}{more}"
        )
    if not rows.keys:
        raise DataError(f"source `{source.name}` has no rows that can be used")
    return rows


def _batches(source: SourcePlan, root: Path) -> Iterator[_Batch]:
    """The source's lines up to its `max_size_bytes`: the line that reaches it is the last. Blank lines are no rows."""
    total = 0
    for file in source_files(source, root):
        choose = is_archive(file.name)
        with reported(file):
            for name, stream in members(file):
                if choose and not selected(name, source.include, source.exclude):
                    continue
                path = printable(f"{file.name}/{name}" if choose else name)
                batch, size = _Batch(source.kind, path, [], []), 0
                for number, line in enumerate(stream, start=1):
                    content = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                    if not content.strip():
                        continue
                    batch.numbers.append(number)
                    batch.lines.append(content)
                    size += len(content)
                    total += len(content)
                    if source.max_size_bytes is not None and total >= source.max_size_bytes:
                        yield batch
                        return
                    if size >= _BATCH_BYTES:
                        yield batch
                        batch, size = _Batch(source.kind, path, [], []), 0
                if batch.lines:
                    yield batch


_vocabulary: Vocabulary
_code_newline: bool


def _begin(folder: Path, code_newline: bool) -> None:
    """Once per worker: a model takes longer to load than a row to encode."""
    global _vocabulary, _code_newline
    _vocabulary, _code_newline = Vocabulary(folder), code_newline


def _encode(batch: _Batch) -> tuple[_Batch, list[Encoded | BadRow]]:
    """The batch without its lines, and what each of them is."""
    results: list[Encoded | BadRow] = []
    for line in batch.lines:
        try:
            results.append(encode_row(parse_row(line, batch.kind), _vocabulary, _code_newline))
        except BadRow as bad:
            results.append(bad)
    return _Batch(batch.kind, batch.file, batch.numbers, []), results


def _keep(rows: _Rows, row: Encoded, place: tuple[str, int]) -> None:
    rows.writer.append(
        row.digest.hex(), row.domain, row.segments, roles=row.roles, trained_L=row.trained_L, margin=row.margin
    )
    rows.digests.append(row.digest)
    rows.keys.append(row.key)
    rows.places.append(place)
    rows.tokens.append(sum(len(segment) for segment in row.segments))
    rows.trained.append(0 if row.trained_L is None else int(row.trained_L.sum()))


def _lay_down(
    stage: ConversationsStage, source: SourcePlan, rows: _Rows, parts: Path, out: Path, unused: IO[str]
) -> None:
    """The source's rows by split, each once; completes its ledger."""
    first_R = first_occurrences(_digests(rows.digests))
    unique_R = first_R == np.arange(len(first_R))
    split_R = _splits(_digests(rows.keys), unique_R, stage)
    for row in np.flatnonzero(~unique_R).tolist():
        file, line = rows.places[first_R[row]]
        _write_unused(unused, source, rows.places[row], DUPLICATE, f"of {file}:{line}")
    everything = READERS[source.kind](parts, source.name, "all")
    for split, number in zip(SPLITS, (TRAIN, HELD_OUT), strict=True):
        writer = RowWriter(out, source.name, split, cast(Kind, source.kind))
        for row in np.flatnonzero(split_R == number).tolist():
            writer.copy(everything, row)
        writer.finish()
    shutil.rmtree(parts / "rows")
    used_R = split_R == TRAIN
    rows.ledger |= {
        "used": int(used_R.sum()),
        "held_out": int((split_R == HELD_OUT).sum()),
        "duplicates": int((~unique_R).sum()),
        "tokens": int(np.array(rows.tokens)[used_R].sum()),
    }
    if source.kind == "chat":
        rows.ledger["trained_tokens"] = int(np.array(rows.trained)[used_R].sum())


def _splits(keys_R2: Digests, unique_R: NDArray[np.bool_], stage: ConversationsStage) -> Decisions:
    """As `data.split.decide`, rows of one key on one side."""
    _, first, group_R = np.unique(keys_R2, axis=0, return_index=True, return_inverse=True)
    decisions = decide(keys_R2[first], np.ones(len(first), dtype=np.bool_), stage.held_out, stage.seed)
    return np.where(unique_R, decisions[group_R.reshape(-1)], 0).astype(np.uint8)


def _digests(digests: Sequence[bytes]) -> Digests:
    return np.frombuffer(b"".join(digests), dtype="<u8").reshape(-1, 2)


def _write_unused(unused: IO[str], source: SourcePlan, place: tuple[str, int], reason: str, detail: str) -> None:
    file, line = place
    row = {"source": source.name, "file": file, "line": line, "reason": reason}
    unused.write(json.dumps(row | ({"detail": detail} if detail else {}), ensure_ascii=False) + "\n")


def _told(name: str, ledger: dict[str, Any]) -> str:
    trained = f", {ledger['trained_tokens']:,} of them trained" if "trained_tokens" in ledger else ""
    lost = [f"{count:,} {what}" for what, count in (("duplicates", ledger["duplicates"]), *ledger["skipped"].items())]
    unused = [each for each in lost if not each.startswith("0 ")]
    return (
        f"{name}: {ledger['used']:,} rows of {ledger['tokens']:,} tokens{trained}, {ledger['held_out']:,} held out"
        + (f"; not used: {', '.join(unused)}" if unused else "")
    )
