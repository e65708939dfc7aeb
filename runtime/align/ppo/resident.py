"""What a moment does not need lies in the host's memory meanwhile.

A tensor that is away keeps its identity: its storage is emptied and filled again, so views of it, gradient buffers and
the optimizer's references to it stay what they are.
"""

from collections.abc import Callable, Iterable
from typing import Literal

import torch
from torch import Tensor, UntypedStorage


class Shelf:
    """Some tensors of a model, on the device or on the host.

    "constant" ones are copied to the host once, "changing" ones each time, and "scratch" ones are not: they come back
    as zeros.
    """

    def __init__(
        self, tensors: Callable[[], Iterable[Tensor]], kind: Literal["constant", "changing", "scratch"]
    ) -> None:
        self._tensors, self._kind = tensors, kind
        self._copies: dict[int, Tensor] = {}  # by storage
        self._away: list[tuple[UntypedStorage, int]] = []  # and its size in bytes

    def put_away(self) -> None:
        """The device holds none of them."""
        storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage() for tensor in self._tensors()}
        for key, storage in storages.items():
            if storage.nbytes() == 0:
                continue
            if self._kind != "scratch":
                known = key in self._copies
                if not known:
                    pinned = storage.device.type == "cuda"
                    self._copies[key] = torch.empty(storage.nbytes(), dtype=torch.uint8, pin_memory=pinned)
                if not known or self._kind == "changing":
                    self._copies[key].copy_(_bytes(storage))
            self._away.append((storage, storage.nbytes()))
            storage.resize_(0)

    def bring(self) -> None:
        """The device holds all of them, as they were."""
        for storage, size_bytes in self._away:
            storage.resize_(size_bytes)
            if self._kind == "scratch":
                _bytes(storage).zero_()
            else:
                _bytes(storage).copy_(self._copies[storage._cdata], non_blocking=True)
        self._away.clear()


class Room:
    """The device's room for weights: one model's at a time, if they move at all."""

    def __init__(self, *, moves: bool) -> None:
        self.moves = moves
        self._inside: Shelf | None = None

    def enter(self, weights: Shelf) -> None:
        """The weights are on the device, until others enter."""
        if self.moves and self._inside is not weights:
            if self._inside is not None:
                self._inside.put_away()
            weights.bring()
            self._inside = weights


def _bytes(storage: UntypedStorage) -> Tensor:
    """All of the storage as a tensor of bytes."""
    whole: Tensor = torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage, 0, (storage.nbytes(),), (1,))
    return whole
