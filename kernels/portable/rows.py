"""A tensor of any leading dimensions as the rows that the row-wise kernels walk over."""

from torch import Tensor


def as_rows(x_NH: Tensor) -> Tensor:
    """x of shape [rows, H] with a dense last axis; a copy only if its strides allow no other way."""
    rows = x_NH.reshape(-1, x_NH.shape[-1])
    return rows if rows.stride(-1) == 1 else rows.contiguous()
