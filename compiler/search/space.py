"""Every legal layout of one phase on one cluster, as columns of numbers.

Legal is what the `check_*` passes let through; a test holds the two together. A layout is a mesh (the axes and the
micro-batch) and a way to use it (sequence parallelism, ZeRO, recomputation).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from trainwright.compiler.exchange import head_ranks
from trainwright.compiler.search.question import Question
from trainwright.spec.plan import Layout

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Column = NDArray[np.int64]

RECOMPUTE = ("none", "selective", "full")
ZERO = (1, 0, 2, 3)  # the default first: where nothing can be shared, all are one
_MESH = ("tensor", "pipeline", "virtual_pipeline", "context", "data", "micro_batch", "micro_batches")
# What the runtime executes of keys of which the language knows more.
_RUNNABLE: dict[str, Sequence[int]] = {"zero": (0, 1)}


@dataclass(frozen=True)
class Group:
    """Layouts that share what the cost formulas take as one word; the columns are of one length."""

    sequence_parallel: bool
    zero: int
    recompute: str
    schedule: str
    columns: "dict[str, Column]" = field(repr=False)

    def __len__(self) -> int:
        return len(self.columns["tensor"])

    @classmethod
    def of(cls, layout: Layout) -> "Group":
        """One layout."""
        import numpy as np

        columns = {key: np.array([getattr(layout, key)], dtype=np.int64) for key in (*_MESH, "zero_group")}
        return cls(layout.sequence_parallel, layout.zero, layout.recompute, layout.schedule, columns)

    @property
    def unrunnable(self) -> "dict[str, NDArray[np.bool_]]":
        """For each key of which the language knows more than the runtime executes, the rows that ask for more."""
        import numpy as np

        everywhere = np.ones(len(self), dtype=bool)
        return {
            "zero": everywhere & (self.zero > 1),
        }

    @property
    def families(self) -> "Column":
        """A number for each layout's tensor, pipeline and context ranks: the same for the same."""
        axes = self.columns
        return (axes["tensor"] << 20 | axes["pipeline"]) << 20 | axes["context"]

    def take(self, rows: "Column") -> "Group":
        """These rows alone."""
        return replace(self, columns={name: column[rows] for name, column in self.columns.items()})

    def layout(self, row: int) -> Layout:
        """The layout in a row, as far as the search chooses it."""
        sizes: dict[str, Any] = {name: int(column[row]) for name, column in self.columns.items()}
        words: dict[str, Any] = {"recompute": self.recompute, "schedule": self.schedule}
        return Layout(**sizes, **words, sequence_parallel=self.sequence_parallel, zero=self.zero)


@dataclass(frozen=True)
class Space:
    """The layouts to choose from, and how many more are legal that the runtime cannot execute yet."""

    groups: tuple[Group, ...]
    left_out: int

    def __len__(self) -> int:
        return sum(len(group) for group in self.groups)


def legal_layouts(question: Question) -> Space:
    """The space of a question; without a layout if none is legal."""
    groups = tuple(group for group in _groups(question, question.everything) if len(group))
    if question.everything:
        return Space(groups, 0)
    count = sum(len(group) for group in groups)
    return Space(groups, sum(len(group) for group in _groups(question, everything=True)) - count)


def _values(question: Question, key: str, every: Sequence[int], everything: bool) -> Sequence[int]:
    """What a key may be: the pinned value, or of all those that the runtime executes, or all."""
    pinned = getattr(question.topology, key)
    if pinned != "auto":
        return (pinned,)
    allowed = None if everything else _RUNNABLE.get(key)
    return every if allowed is None else [value for value in every if value in allowed]


def _meshes(question: Question, everything: bool) -> Iterator[tuple[int, ...]]:
    """Rows of _MESH."""
    model, world, topology = question.model, question.world_size, question.topology
    cut_by_tensor = (model.heads, model.kv_heads, model.ffn_size, model.vocab_size)
    # A tensor axis across nodes is legal, but no one wants its exchanges there: only where it is pinned.
    for tensor in _values(question, "tensor", divisors(question.gpus_per_node), everything):
        if world % tensor or any(size % tensor for size in cut_by_tensor):
            continue
        if topology.sequence_parallel is True and tensor == 1:
            continue
        for pipeline in _values(question, "pipeline", divisors(model.layers), everything):
            if (world // tensor) % pipeline:
                continue
            for virtual in _virtual(question, pipeline):
                left = world // (tensor * pipeline)
                for context in _values(question, "context", divisors(left), everything):
                    if left % context or (context > 1 and question.sequence_length % (2 * context)):
                        continue
                    by_heads = head_ranks(topology, context)
                    if context % by_heads or model.heads // tensor % by_heads:
                        continue
                    for batch in _batches(question, left // context, pipeline, virtual):
                        yield tensor, pipeline, virtual, context, left // context, *batch


def _virtual(question: Question, pipeline: int) -> Iterator[int]:
    """Model chunks a rank: more than one is the interleaved schedule, and that alone."""
    topology, layers = question.topology, question.model.layers
    if layers % pipeline:
        return
    for virtual in _values(question, "virtual_pipeline", divisors(layers // pipeline), everything=True):
        interleaved = virtual > 1
        if layers % (pipeline * virtual) or (interleaved and pipeline == 1):
            continue
        if topology.schedule in ("auto", "interleaved" if interleaved else "1f1b"):
            yield virtual


def _batches(question: Question, data: int, pipeline: int, virtual: int) -> Iterator[tuple[int, int]]:
    """Micro-batch and number of micro-batches."""
    if question.topology.data not in ("auto", data) or question.sequences % data:
        return
    per_rank = question.sequences // data
    for micro_batch in _values(question, "micro_batch", divisors(per_rank), everything=True):
        count, rest = divmod(per_rank, micro_batch)
        if rest == 0 and (virtual == 1 or count % pipeline == 0):
            yield micro_batch, count


def _groups(question: Question, everything: bool) -> Iterator[Group]:
    import numpy as np

    topology = question.topology
    rows = np.array(list(_meshes(question, everything)), dtype=np.int64).reshape(-1, len(_MESH))
    meshes = {name: rows[:, place] for place, name in enumerate(_MESH)}
    tensor, context = meshes["tensor"], meshes["context"]
    cut = tensor > 1
    even = question.sequence_length // context % tensor == 0
    recomputes = [each for each in RECOMPUTE if topology.recompute in ("auto", each)]
    if topology.recompute == "auto" and topology.recompute_modules is not None:  # they belong to one of the three
        recomputes = ["selective"]
    elif topology.recompute == "auto" and topology.recompute_layers is not None:
        recomputes = ["full"]
    for zero in _values(question, "zero", ZERO, everything):
        if (zero == 0 and isinstance(topology.zero_group, int)) or (zero == 3 and topology.weight > 1):
            continue
        for sequence_parallel in (False, True):
            if topology.sequence_parallel not in ("auto", sequence_parallel):
                continue
            fits = cut & even if sequence_parallel else np.ones_like(cut)
            for interleaved in (False, True):
                keep = fits & ((meshes["virtual_pipeline"] > 1) == interleaved)
                kept = {name: column[keep] for name, column in meshes.items()}
                columns = _with_zero_groups(question, kept, zero)
                if topology.weight > 1:
                    holders = columns["context"] * columns["zero_group" if zero else "data"]
                    columns = {name: column[holders % topology.weight == 0] for name, column in columns.items()}
                schedule = "interleaved" if interleaved else "1f1b"
                for recompute in recomputes:
                    yield Group(sequence_parallel, zero, recompute, schedule, columns)


def _with_zero_groups(question: Question, meshes: "dict[str, Column]", zero: int) -> "dict[str, Column]":
    """The meshes, each as often as there are groups to shard in."""
    import numpy as np

    data, written = meshes["data"], question.topology.zero_group
    if zero == 0:
        return meshes | {"zero_group": np.ones_like(data)}
    if written is None:
        return meshes | {"zero_group": data}
    if written != "auto":
        keep = data % written == 0
        kept = {name: column[keep] for name, column in meshes.items()}
        return kept | {"zero_group": np.full_like(kept["data"], written)}
    # A group of one shards nothing: that is ZeRO 0.
    groups = [[size for size in divisors(int(each)) if size > 1 or each == 1] for each in data]
    repeats = [len(sizes) for sizes in groups]
    flat = np.array([size for sizes in groups for size in sizes], dtype=np.int64)
    return {name: np.repeat(column, repeats) for name, column in meshes.items()} | {"zero_group": flat}


@cache
def divisors(number: int) -> tuple[int, ...]:
    """All of them, rising."""
    small = [n for n in range(1, int(number**0.5) + 1) if number % n == 0]
    return tuple(sorted({*small, *(number // n for n in small)}))
