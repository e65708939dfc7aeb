"""Counts what is allocated: every storage from its birth to its death, by kind.

A view shares its base's storage and an operator that works in place makes none, so both count nothing. Sizes are
rounded up to 512 bytes, as torch's CUDA allocator does: the sum is what `torch.cuda.memory_allocated` would say, which
knows nothing of fragmentation, of the device's context and of communicators.
"""

import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode

_ROUND_BYTES = 512
_OF_NO_PASS = frozenset({"temporaries", "communication"})


@dataclass(frozen=True, slots=True)
class _Place:
    made: str  # the kind of a storage that is made here
    saved: str  # its kind from when the backward pass is known to need it
    takes_inputs: bool  # what is saved here is of kind `saved`, wherever it was made
    recomputes: bool  # what is saved here or inside would have been freed after the forward pass


@dataclass(slots=True)
class _Block:
    size_bytes: int
    kind: str
    if_saved: str


@dataclass(frozen=True)
class Peak:
    """The moment when most was allocated, and of what."""

    allocated_bytes: int
    kinds: dict[str, int]
    moment: str


class Allocations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside `with`, every storage that an operator makes is counted until it dies.

    `scratch` says how much an operator allocates for itself while it runs, for those that do.
    """

    def __init__(self, scratch: Mapping[Any, Callable[..., int]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.allocated_bytes = 0
        self.operators = 0
        self.peak = Peak(0, {}, "")
        self._moment = ""
        self._scratch = scratch
        self._live: dict[int, _Block] = {}
        self._kinds: dict[str, int] = defaultdict(int)
        self._places = [_Place("temporaries", "temporaries", takes_inputs=False, recomputes=False)]
        self._saving = saved_tensors_hooks(self._save, lambda tensor: tensor)

    def __enter__(self) -> "Allocations":
        # A storage that is resized calls no operator: this is how Megatron drops outputs that it will compute again.
        self._resize = torch.UntypedStorage.resize_

        def resize(storage: torch.UntypedStorage, size_bytes: int) -> torch.UntypedStorage:
            self._resize(storage, size_bytes)
            self._measure(storage)
            return storage

        torch.UntypedStorage.resize_ = resize  # type: ignore[method-assign, assignment]
        self._saving.__enter__()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        self._saving.__exit__()
        torch.UntypedStorage.resize_ = self._resize  # type: ignore[method-assign]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.operators += 1
        for tensor in (result,) if isinstance(result, Tensor) else _tensors(result):
            self._measure(tensor.untyped_storage())
        if func in self._scratch:
            self._note_peak(self._scratch[func](*args))
        return result

    # --- what the tracer says ---

    @contextmanager
    def at(self, moment: str) -> Iterator[None]:
        """Inside the block it is `moment`."""
        before, self._moment = self._moment, moment
        yield
        self._moment = before

    def enter(self, *, made: str, saved: str, takes_inputs: bool = False, recomputes: bool = False) -> None:
        """Until `leave`: a new storage is of kind `made`, and of kind `saved` once a backward pass will need it."""
        recomputes = recomputes or self._places[-1].recomputes
        self._places.append(_Place(made, "recomputed layer" if recomputes else saved, takes_inputs, recomputes))

    def leave(self) -> None:
        self._places.pop()

    def correct(self, saved: str, tensor: Tensor) -> None:
        """What was just made is of kind `saved` once a backward pass will need it, not of this place's."""
        block = self._live[tensor.untyped_storage()._cdata]
        is_saved = block.kind == block.if_saved
        if not self._places[-1].recomputes:
            block.if_saved = saved
        if is_saved:
            self._move(block, block.if_saved)

    def assign(self, kind: str, tensor: Tensor) -> None:
        """The storage of `tensor` is of `kind`, whatever it was."""
        storage = tensor.untyped_storage()
        self._measure(storage)
        self._move(self._live[storage._cdata], kind)

    def assign_rest(self, kind: str, *, other_than: set[str]) -> None:
        """All that is alive and not of the kinds `other_than` is of `kind`."""
        for block in self._live.values():
            if block.kind not in other_than:
                self._move(block, kind)

    def begin(self) -> None:
        """The peak is sought from now on."""
        self.peak = Peak(0, {}, self._moment)
        self._note_peak(0)

    # --- private ---

    def _measure(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        block = self._live.get(key)
        size_bytes = -(-storage.nbytes() // _ROUND_BYTES) * _ROUND_BYTES
        if block is None:
            place = self._places[-1]
            block = self._live[key] = _Block(0, place.made, place.saved)
            weakref.finalize(storage, self._die, key)
        if block.size_bytes != size_bytes:
            self._grow(block, size_bytes - block.size_bytes)
            self._note_peak(0)

    def _die(self, key: int) -> None:
        block = self._live.pop(key)
        self._grow(block, -block.size_bytes)

    def _grow(self, block: _Block, by_bytes: int) -> None:
        block.size_bytes += by_bytes
        self._kinds[block.kind] += by_bytes
        self.allocated_bytes += by_bytes

    def _move(self, block: _Block, kind: str) -> None:
        self._kinds[block.kind] -= block.size_bytes
        self._kinds[kind] += block.size_bytes
        block.kind = kind

    def _save(self, tensor: Tensor) -> Tensor:
        block = self._live.get(tensor.untyped_storage()._cdata)
        if block is not None and block.kind in _OF_NO_PASS:
            place = self._places[-1]
            self._move(block, place.saved if place.takes_inputs else block.if_saved)
        return tensor

    def _note_peak(self, scratch_bytes: int) -> None:
        total = self.allocated_bytes + scratch_bytes
        if total > self.peak.allocated_bytes:
            kinds = {kind: size for kind, size in self._kinds.items() if size}
            if scratch_bytes:
                kinds["temporaries"] = kinds.get("temporaries", 0) + scratch_bytes
            self.peak = Peak(total, kinds, self._moment)


def _tensors(result: Any) -> Iterator[Tensor]:
    """The tensors among what an operator returned: some alone, some in lists."""
    if isinstance(result, (tuple, list)):
        for each in result:
            if isinstance(each, Tensor):
                yield each
            else:
                yield from _tensors(each)
