"""Tile sizes, warps and pipeline stages of the portable kernels, by head size and width of an element.

On sm_90 each row compiles without spills and within 227 KB of shared memory (`kernels/compile_check.py`); what is fast
has still to be measured on a GPU.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tiles:
    """BM queries by BN keys."""

    BM: int
    BN: int
    warps: int
    stages: int


@dataclass(frozen=True)
class Configuration:
    forward: Tiles
    keys: Tiles
    queries: Tiles


_TABLE = {
    (64, 2): Configuration(Tiles(128, 128, 8, 2), Tiles(64, 128, 8, 2), Tiles(128, 64, 8, 2)),
    (128, 2): Configuration(Tiles(128, 64, 8, 3), Tiles(64, 64, 8, 2), Tiles(64, 64, 4, 2)),
    (256, 2): Configuration(Tiles(64, 32, 8, 2), Tiles(32, 32, 8, 1), Tiles(32, 32, 8, 1)),
    (64, 4): Configuration(Tiles(64, 32, 8, 1), Tiles(32, 32, 8, 1), Tiles(32, 32, 4, 1)),
    (128, 4): Configuration(Tiles(32, 32, 8, 1), Tiles(16, 32, 8, 1), Tiles(32, 16, 8, 1)),
    (256, 4): Configuration(Tiles(16, 16, 8, 1), Tiles(16, 16, 8, 1), Tiles(16, 16, 8, 1)),
}
# The interpreter takes a time a tile, whatever its size; tests want several tiles of a short document all the same.
INTERPRETED = Configuration(Tiles(64, 32, 4, 1), Tiles(32, 64, 4, 1), Tiles(64, 32, 4, 1))


def configuration(head_size: int, element_bytes: int) -> Configuration:
    """The tiles for heads of `head_size` (at most 256); a size between two rows takes the larger."""
    padded = next(size for size in (64, 128, 256) if head_size <= size)
    return _TABLE[padded, element_bytes]
