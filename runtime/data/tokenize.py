"""Documents -> tokens as Megatron-core's IndexedDataset: `<s>`, the text, `</s>`, one document after the other.

Batches of documents go to the workers and come back in order, whatever their number. Training documents are then laid
down in the order of their ids, which are hashes: a shuffle in which no document's place depends on the others.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainwright.runtime.data.document import decode, documents_path, read_lines
from trainwright.runtime.data.indexed import (
    DType,
    TokenizedSource,
    token_dtype,
    tokens_path,
    write_documents,
    write_index,
)
from trainwright.runtime.data.inputs import holding
from trainwright.runtime.data.parallel import ordered_map
from trainwright.runtime.data.vocabulary import MODEL_FILE, Vocabulary
from trainwright.spec.plan import TokenizeStage

COUNTS_FILE = "counts.json"
SPLITS = ("train", "held_out")
_BATCH_BYTES = 1 << 20


@dataclass(frozen=True)
class _Batch:
    source: str
    split: str
    lines: list[bytes]


@dataclass(frozen=True)
class _Encoded:
    """What a batch becomes: its tokens back to back, and each document's length in tokens and id."""

    source: str
    split: str
    tokens: NDArray[np.integer]
    lengths_D: NDArray[np.int64]
    ids_D: NDArray[np.uint64]
    text_bytes: int


class _Part:
    """One source's split while it is made: tokens in the documents' order, in a file of their own."""

    def __init__(self, prefix: Path, dtype: DType) -> None:
        self.prefix, self.dtype = prefix, dtype
        self.lengths: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
        self.ids: list[NDArray[np.uint64]] = [np.empty(0, np.uint64)]
        self.text_bytes = 0
        Path(f"{prefix}.bin").touch()

    def append(self, encoded: _Encoded) -> None:
        with open(f"{self.prefix}.bin", "ab") as file:
            file.write(encoded.tokens.tobytes())
        self.lengths.append(encoded.lengths_D)
        self.ids.append(encoded.ids_D)
        self.text_bytes += encoded.text_bytes

    def lay_down(self, prefix: Path, shuffled: bool) -> dict[str, int]:
        """`prefix` holds the documents, by their ids if shuffled; returns their counts."""
        write_index(self.prefix, np.concatenate(self.lengths), self.dtype)
        source = TokenizedSource(self.prefix)
        order = np.argsort(np.concatenate(self.ids), kind="stable") if shuffled else np.arange(len(source))
        write_documents(prefix, (source.tokens(document) for document in order), self.dtype)
        return {"documents": len(source), "tokens": source.token_count, "bytes": self.text_bytes}


def run(
    stage: TokenizeStage, *, root: Path, inputs: dict[str, Path], out: Path, progress: Callable[[str], None]
) -> dict[str, object]:
    """`out` holds `<source>.train` and `<source>.held_out` as `.bin` and `.idx`, and `counts.json`.

    `counts.json` and the value returned: {source: {split: {documents, tokens, bytes}}}, bytes of UTF-8 text.
    """
    folder = out / ".parts"
    folder.mkdir()
    dtype = token_dtype(stage.vocab_size)
    keys = [(source, split) for source in stage.sources for split in SPLITS]
    parts = {key: _Part(tokens_path(folder, *key), dtype) for key in keys}
    batches = _batches(holding(inputs, "documents"), keys)
    for encoded in ordered_map(_encode, batches, stage.workers, _begin, (holding(inputs, MODEL_FILE), dtype)):
        parts[encoded.source, encoded.split].append(encoded)
    counts: dict[str, dict[str, dict[str, int]]] = {source: {} for source in stage.sources}
    for (source, split), part in parts.items():
        counts[source][split] = part.lay_down(tokens_path(out, source, split), shuffled=split == "train")
    shutil.rmtree(folder)
    (out / COUNTS_FILE).write_text(json.dumps(counts, indent=2) + "\n", encoding="utf-8")
    for source, splits in counts.items():
        train, held_out = splits["train"], splits["held_out"]
        progress(f"{source}: {train['tokens']:,} tokens to train on, {held_out['tokens']:,} held out")
    return {"counts": counts}


def _batches(folder: Path, keys: list[tuple[str, str]]) -> Iterator[_Batch]:
    for source, split in keys:
        lines: list[bytes] = []
        size = 0
        for line in read_lines(documents_path(folder, source, split)):
            lines.append(line)
            size += len(line)
            if size >= _BATCH_BYTES:
                yield _Batch(source, split, lines)
                lines, size = [], 0
        if lines:
            yield _Batch(source, split, lines)


_vocabulary: Vocabulary
_dtype: DType


def _begin(folder: Path, dtype: DType) -> None:
    """Once per worker: a model takes longer to load than a document to encode."""
    global _vocabulary, _dtype
    _vocabulary, _dtype = Vocabulary(folder), dtype


def _encode(batch: _Batch) -> _Encoded:
    documents = [decode(line) for line in batch.lines]
    begin, end = _vocabulary.begin, _vocabulary.end
    tokens = [np.array([begin, *_vocabulary.encode(document.text), end], dtype=_dtype) for document in documents]
    return _Encoded(
        source=batch.source,
        split=batch.split,
        tokens=np.concatenate(tokens),
        lengths_D=np.array([len(document) for document in tokens], dtype=np.int64),
        ids_D=np.array([int(document.id[:16], 16) for document in documents], dtype=np.uint64),
        text_bytes=sum(len(document.text.encode()) for document in documents),
    )
