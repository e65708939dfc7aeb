"""Tile sizes, warps and pipeline stages of the Hopper kernels, by head size.

Each row compiles for sm_90 without spills with Triton 3.6 and 3.7 (`kernels/compile_check.py`); what is fast has still
to be measured on a GPU. Triton specialises warps where there are four: they become two groups of four that multiply,
each its half of the rows, and four that fetch. That takes a register file of 240 a thread: the keys' kernel for heads
of 128 keeps too much for it, the queries' kernel is one that Triton cannot split.
"""

from dataclasses import dataclass

from trainwright.kernels.portable.tiles import INTERPRETED as SMALL
from trainwright.kernels.portable.tiles import Tiles


@dataclass(frozen=True)
class Configuration:
    """`special`: whether warps of the keys' kernel are specialised; those of the forward pass always are."""

    forward: Tiles
    keys: Tiles
    special: bool
    queries: Tiles


TABLE = {
    64: Configuration(Tiles(128, 128, 4, 2), Tiles(64, 128, 4, 2), True, Tiles(128, 64, 8, 2)),
    128: Configuration(Tiles(128, 128, 4, 2), Tiles(64, 128, 8, 2), False, Tiles(128, 64, 8, 2)),
}
INTERPRETED = Configuration(SMALL.forward, SMALL.keys, True, SMALL.queries)
