"""Which documents are kept, and which of them are held out: decided from digests alone, the same on every machine."""

import hashlib

import numpy as np
from numpy.typing import NDArray

DROPPED, TRAIN, HELD_OUT = 0, 1, 2

Decisions = NDArray[np.uint8]
Digests = NDArray[np.uint64]  # [documents, 2]


def first_occurrences(digests_D2: Digests) -> NDArray[np.int64]:
    """For each document the index of the first one with the same text: itself, unless it is a duplicate."""
    order = np.lexsort((digests_D2[:, 1], digests_D2[:, 0]))  # stable: equal digests stay in document order
    ranked = digests_D2[order]
    new = np.ones(len(order), dtype=bool)
    new[1:] = (ranked[1:] != ranked[:-1]).any(axis=1)
    first = np.empty(len(order), dtype=np.int64)
    first[order] = order[np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))]
    return first


def decide(digests_D2: Digests, kept_D: NDArray[np.bool_], held_out: float, seed: int) -> Decisions:
    """DROPPED, TRAIN or HELD_OUT for each document of one source.

    A document is held out by its text and the seed alone, so other documents and other sources move none. With two or
    more documents at least one is held out (if any shall be) and at least one is not.
    """
    decisions = np.where(kept_D, TRAIN, DROPPED).astype(np.uint8)
    if held_out == 0 or not kept_D.any():
        return decisions
    places = _places(digests_D2, seed)
    decisions[kept_D & (places < held_out)] = HELD_OUT
    kept = np.flatnonzero(kept_D)
    if len(kept) > 1 and not (decisions == HELD_OUT).any():
        decisions[kept[np.argmin(places[kept])]] = HELD_OUT
    if not (decisions == TRAIN).any():
        decisions[kept[np.argmax(places[kept])]] = TRAIN
    return decisions


def _places(digests_D2: Digests, seed: int) -> NDArray[np.float64]:
    """A uniform number of [0, 1) per document: its digest, mixed with the seed (the finaliser of splitmix64)."""
    salt = np.frombuffer(hashlib.blake2b(f"held out {seed}".encode(), digest_size=8).digest(), dtype="<u8")
    return (mix(digests_D2[:, 0] ^ salt) >> np.uint64(11)).astype(np.float64) / 2.0**53


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Well-scattered 64-bit numbers, one to one: the finaliser of splitmix64 (Steele, Lea, Flood 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
