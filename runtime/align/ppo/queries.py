"""Which queries an iteration answers, and the seeds of the answers: pure functions of (seed, round, iteration, place).

Whole passes over the queries, each in an order of its own.
"""

import hashlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from trainwright.runtime.align.data.rows import Queries
from trainwright.runtime.data.split import mix
from trainwright.spec.plan import PpoStage

ANSWERS, PROBES = "answers", "probes"


def draw(count: int, per_iteration: int, *, seed: int, round_: int, iteration: int) -> list[int]:
    """Which of `count` queries the iteration answers, in order. All are answered before one is answered again."""
    places = range(iteration * per_iteration, (iteration + 1) * per_iteration)
    order: dict[int, NDArray[np.int64]] = {}
    drawn = []
    for place in places:
        number, offset = divmod(place, count)
        if number not in order:
            salt = np.uint64(_hash(f"{seed}/{round_}/queries/{number}"))
            order[number] = np.argsort(mix(mix(np.arange(count, dtype=np.uint64) + salt)), kind="stable")
        drawn.append(int(order[number][offset]))
    return drawn


def answer_seeds(kind: str, count: int, *, seed: int, round_: int, iteration: int) -> list[int]:
    """The seed of each answer's draws: of another iteration, round or kind (ANSWERS, PROBES) it is another one."""
    return [_hash(f"{seed}/{round_}/{kind}/{iteration}/{place}") >> 1 for place in range(count)]


def mini_batch_of(
    count: int, mini_batches: int, *, seed: int, round_: int, iteration: int, epoch: int
) -> list[list[int]]:
    """The answers of each mini-batch of a pass over an iteration: equally many in each, in a random order."""
    salt = np.uint64(_hash(f"{seed}/{round_}/mini-batches/{iteration}/{epoch}"))
    order = np.argsort(mix(mix(np.arange(count, dtype=np.uint64) + salt)), kind="stable")
    return [part.tolist() for part in np.array_split(order, mini_batches)]


def mini_batches_of(stage: PpoStage, answers: int, iteration: int, epoch: int) -> list[list[int]]:
    """See `mini_batch_of`."""
    return mini_batch_of(
        answers, stage.mini_batches, seed=stage.seed, round_=stage.round, iteration=iteration, epoch=epoch
    )


def passes(stage: PpoStage, answers: int, iteration: int) -> Iterator[list[int]]:
    """The answers of every optimizer step of the iteration, counted from 0."""
    for epoch in range(stage.epochs):
        yield from mini_batches_of(stage, answers, iteration, epoch)


def short_enough(queries: Queries, longest: int) -> list[int]:
    """The queries of at most `longest` tokens, `<s>` not counted."""
    short: list[int] = np.flatnonzero(queries.lengths_R <= longest).tolist()
    return short


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")
