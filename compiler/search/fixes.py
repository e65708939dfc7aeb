"""The cheapest changes of what is written that make a phase fit into the memory, each a few values of `[topology]`.

All legal layouts that differ in one or two written values are looked at. Of those that fit, one is kept for each set of
keys that change, the fastest; and a pair only where neither of its two does it alone. If one or two values are not
enough, the fastest layout that fits at all is told, whatever it changes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec

from trainwright.compiler.batching import choose_micro_batch
from trainwright.compiler.capacity import TIGHT
from trainwright.compiler.search.price import peaks_of, times_of
from trainwright.compiler.search.question import Question, is_open
from trainwright.compiler.search.space import Group, legal_layouts
from trainwright.spec.auto import AUTO_KEYS
from trainwright.spec.device import HardwareFile
from trainwright.spec.plan import Layout

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]

_KEYS = tuple(key for key in AUTO_KEYS if key != "schedule")  # it follows from the others
_SHOWN = 3
_FEW = 2  # values changed at once


@dataclass(frozen=True)
class Fix:
    """Values that make the layout fit, with what it then needs and takes."""

    changes: dict[str, Any]
    peak_bytes: int
    step_s: float | None  # None: nothing is known of the device's speed
    runnable: bool  # False: the change asks for something that the runtime cannot execute yet

    @property
    def rank(self) -> tuple[Any, ...]:
        """What can be executed first; then the fastest, or the smallest."""
        return not self.runnable, self.step_s or 0.0, self.peak_bytes, len(self.changes), str(self.changes)


def fixes(question: Question, device: HardwareFile) -> tuple[Fix, ...]:
    """At most three, the best first; none if nothing fits."""
    found = _fixes(question, device, range(1, _FEW + 1))
    if not found:
        return tuple(_fixes(question, device, range(_FEW + 1, len(_KEYS) + 1))[:1])
    alone = [fix.changes.items() for fix in found if len(fix.changes) == 1]
    kept: dict[frozenset[str], Fix] = {}
    for fix in found:
        if len(fix.changes) == 1 or not any(changes <= fix.changes.items() for changes in alone):
            kept.setdefault(frozenset(fix.changes), fix)
    return tuple(kept.values())[:_SHOWN]


def any_fits(question: Question, device: HardwareFile) -> bool:
    """Whether some layout that the runtime can execute fits, whatever was written."""
    groups = legal_layouts(_freed(question, everything=False)).groups
    return any((peaks_of(question, group, device) <= _limit(device)).any() for group in groups)


def step_s(question: Question, layout: Layout, device: HardwareFile) -> float | None:
    """Seconds of a step under one layout by the same closed form; None if nothing is known of the device's speed."""
    if device.peak(question.precision) is None:
        return None
    return float(times_of(question, Group.of(layout), device)[0])


def _freed(question: Question, everything: bool) -> Question:
    free = msgspec.structs.replace(question.topology, **dict.fromkeys(_KEYS, "auto"))
    return replace(question, topology=free, everything=everything)


def _limit(device: HardwareFile) -> float:
    if device.memory_bytes is None:
        raise ValueError(f"nothing is known of the memory of `{device.name}`")
    return TIGHT * device.memory_bytes


def _fixes(question: Question, device: HardwareFile, counts: range) -> list[Fix]:
    """What fits and changes so many values, the best first."""
    groups = legal_layouts(_freed(question, everything=True)).groups
    found = [fix for group in groups for fix in _fitting(question, device, group, counts)]
    return sorted(found, key=lambda fix: fix.rank)


def _fitting(question: Question, device: HardwareFile, group: Group, counts: range) -> Iterator[Fix]:
    """The layouts of a group that fit and change so many values: the fastest for each set of changes."""
    import numpy as np

    if group.zero == 0 and isinstance(question.topology.zero_group, int):
        return  # the group would have to be taken out, which no line can say
    changed = _changed(question, group)
    count = np.sum(list(changed.values()), axis=0)
    rows = np.flatnonzero((count >= counts.start) & (count < counts.stop) & _reachable(question, group))
    peaks = peaks_of(question, group.take(rows), device)
    fit = peaks <= _limit(device)
    rows, peaks = rows[fit], peaks[fit]
    timed = device.peak(question.precision) is not None
    times = times_of(question, group.take(rows), device) if timed else peaks
    unrunnable = group.unrunnable
    sizes = [np.where(mask, group.columns.get(key, 0), 0) + mask for key, mask in changed.items()]
    order = np.argsort(times, kind="stable")
    _, first = np.unique(np.stack(sizes, axis=1)[rows[order]], axis=0, return_index=True)
    for place in order[first]:
        layout = group.layout(int(rows[place]))
        changes = {key: getattr(layout, key) for key, mask in changed.items() if mask[rows[place]]}
        yield Fix(
            changes=changes,
            peak_bytes=int(peaks[place]),
            step_s=float(times[place]) if timed else None,
            runnable=not any(key in changes and mask[rows[place]] for key, mask in unrunnable.items()),
        )


def _reachable(question: Question, group: Group) -> "Mask":
    """Where the search would find what the written values leave to it: it keeps to what can be executed."""
    import numpy as np

    reachable = np.ones(len(group), dtype=bool)
    if is_open(question.topology) and not question.everything:
        for key, mask in group.unrunnable.items():
            if getattr(question.topology, key) == "auto":
                reachable &= ~mask
    return reachable


def _changed(question: Question, group: Group) -> "dict[str, Mask]":
    """For each key, the rows that need another value than the written one."""
    import numpy as np

    topology, columns = question.topology, group.columns
    everywhere = np.ones(len(group), dtype=bool)
    expected: dict[str, Any] = {
        key: getattr(topology, key)
        for key in ("tensor", "pipeline", "virtual_pipeline", "context", "zero", "recompute")
    }
    expected["data"] = columns["data"] if topology.data == "auto" else topology.data
    written = topology.sequence_parallel
    expected["sequence_parallel"] = columns["tensor"] > 1 if written == "auto" else written
    if group.zero:
        expected["zero_group"] = columns["data"] if topology.zero_group is None else topology.zero_group
    expected["micro_batch"] = _expected_micro_batches(question, group)
    words = {"zero": group.zero, "recompute": group.recompute, "sequence_parallel": group.sequence_parallel}
    free = is_open(topology)  # every "auto" is then the search's, and no change
    return {
        key: everywhere & (value != words.get(key, columns.get(key)))
        for key, value in expected.items()
        if not (free and getattr(topology, key) == "auto")
    }


def _expected_micro_batches(question: Question, group: Group) -> "NDArray[np.int64]":
    """The micro-batch of each row if nothing else is written."""
    import numpy as np

    written, columns = question.topology.micro_batch, group.columns
    if written != "auto":
        return np.full(len(group), written)
    per_rank = columns["micro_batch"] * columns["micro_batches"]
    shapes = np.stack([per_rank, columns["pipeline"], columns["virtual_pipeline"]], axis=1)
    unique, place = np.unique(shapes, axis=0, return_inverse=True)
    chosen = [
        choose_micro_batch(int(sequences), question.sequence_length, int(pipeline), int(virtual)) or 0
        for sequences, pipeline, virtual in unique
    ]
    return np.array(chosen, dtype=np.int64)[place.reshape(-1)]
