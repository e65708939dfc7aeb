"""Keys and values of all positions that the rows of a batch have read, allocated once.

Keys lie here as they were rotated at their positions, so a step rotates only what it adds. Query heads that share a
key head are not given copies of it.

L: layers of this chunk, R: rows, N: tokens, G: key and value heads of this rank, T: positions, D: head size.
"""

import torch
from torch import Tensor


class KeyValueCache:
    """The cache of one chunk of the model. The active rows are the first ones, whatever their lengths are."""

    def __init__(
        self, *, layers: int, rows: int, heads: int, positions: int, size: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        # Zeros: positions that no row has written are masked, but a masked NaN would still reach the sum.
        self.content_L2RGTD = torch.zeros(layers, 2, rows, heads, positions, size, dtype=dtype, device=device)

    def write(self, layer: int, row_N: Tensor, position_N: Tensor, k_NGD: Tensor, v_NGD: Tensor) -> None:
        """Each token's key and value stand at its row and position."""
        self.content_L2RGTD[layer, 0][row_N, :, position_N] = k_NGD
        self.content_L2RGTD[layer, 1][row_N, :, position_N] = v_NGD

    def read(self, layer: int, rows: int, positions: int) -> tuple[Tensor, Tensor]:
        """Views k_RGTD and v_RGTD of the first rows and positions."""
        k_RGTD, v_RGTD = self.content_L2RGTD[layer, :, :rows, :, :positions]
        return k_RGTD, v_RGTD

    def move(self, source: int, target: int, positions: int) -> None:
        """The row `target` holds what the row `source` has read in its first `positions`."""
        self.content_L2RGTD[:, :, target, :, :positions] = self.content_L2RGTD[:, :, source, :, :positions]
