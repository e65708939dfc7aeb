"""The text a tokenizer is trained on: documents in a seeded order, from each source its share of the mixture."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainwright.runtime.data.document import documents_path, read_documents
from trainwright.runtime.data.errors import DataError
from trainwright.runtime.data.split import mix


@dataclass(frozen=True)
class SourceSample:
    """How often each training document of a source is read, and how much text that gives."""

    path: Path
    times_D: NDArray[np.int64]
    size_bytes: int

    def texts(self) -> Iterator[str]:
        """Each drawn document's text, as often as it was drawn."""
        for times, document in zip(self.times_D, read_documents(self.path), strict=True):
            for _ in range(times):
                yield document.text


def draw(folder: Path, mixture: dict[str, float], sample_bytes: int, seed: int) -> dict[str, SourceSample]:
    """A sample of `sample_bytes`, or of as much text as there is, with the mixture's shares.

    A source with less text than its share is read several times, as it will be in training: a language keeps the
    share of the vocabulary that it has of the mixture. Each source's size is met to within one document. Raises
    DataError if a source has no training text.
    """
    weights = {name: weight for name, weight in sorted(mixture.items()) if weight > 0}
    sizes, orders = {}, {}
    for name in weights:
        sizes[name], orders[name] = _survey(documents_path(folder, name, "train"), name, seed)
    total = min(sample_bytes, sum(int(size.sum()) for size in sizes.values()))
    drawn = {}
    for name, weight in weights.items():
        passes, rest = divmod(round(total * weight / sum(weights.values())), int(sizes[name].sum()))
        times = np.full(len(sizes[name]), passes, dtype=np.int64)
        before = np.cumsum(sizes[name][orders[name]]) - sizes[name][orders[name]]
        times[orders[name][before < rest]] += 1
        drawn[name] = SourceSample(documents_path(folder, name, "train"), times, int(times @ sizes[name]))
    return drawn


def _survey(path: Path, name: str, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The documents' sizes in bytes, and their seeded order."""
    sizes, ids = [], []
    for document in read_documents(path):
        sizes.append(len(document.text.encode()))
        ids.append(int(document.id[:16], 16))
    if not sizes:
        raise DataError(f"source `{name}` has no training text for the tokenizer")
    salt = hashlib.blake2b(f"tokenizer {seed}".encode(), digest_size=8).digest()
    keys = mix(np.array(ids, dtype=np.uint64) ^ np.frombuffer(salt, dtype="<u8"))
    return np.array(sizes, dtype=np.int64), np.argsort(keys, kind="stable")
