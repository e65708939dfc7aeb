"""The cost model's memory of a rank beside the traced one, kind by kind.

The trace knows an activation by the module that made it, the model by what it is; both meet in the trace's coarser
words.
"""

from dataclasses import dataclass

from trainwright.spec.plan import RankMemory

# The share of the traced total by which both may differ before it is told.
TOLERANCE = 0.02

_AS_TRACED = {
    "norm inputs": "layer inputs",
    "inputs of recomputed layers": "layer inputs",
    "norm statistics": "norms",
    "inputs of qkv and MLP": "norms",
    "queries, keys, values": "attention",
    "rotated queries and keys": "attention",
    "attention output": "attention",
    "exchanged attention output": "attention",
    "attention scores": "attention",
    "softmax sums": "attention",
    "gate and up": "MLP",
    "activation product": "MLP",
}
_STATES = ("parameters", "gradients", "optimizer")
_REST = ("logits", "communication", "temporaries")


@dataclass(frozen=True)
class KindPair:
    """Bytes of one kind at each one's own moment of the peak."""

    kind: str
    planned_bytes: int
    traced_bytes: int


@dataclass(frozen=True)
class Comparison:
    """A rank's peak as planned and as traced."""

    kinds: tuple[KindPair, ...]
    planned_bytes: int
    traced_bytes: int

    @property
    def error(self) -> float:
        """Planned over traced, less one."""
        return self.planned_bytes / self.traced_bytes - 1

    @property
    def agrees(self) -> bool:
        return abs(self.error) <= TOLERANCE

    @property
    def worst(self) -> KindPair:
        """The kind that differs most."""
        return max(self.kinds, key=lambda pair: abs(pair.planned_bytes - pair.traced_bytes))


def compare(planned: RankMemory, traced: RankMemory) -> Comparison:
    """What both say of what the allocator hands out; the framework's own memory is not traced."""
    ours, theirs = _by_kind(planned), _by_kind(traced)
    names = [*_STATES, *sorted((ours.keys() | theirs.keys()) - {*_STATES, *_REST}), *_REST]
    pairs = (KindPair(name, ours.get(name, 0), theirs.get(name, 0)) for name in names)
    return Comparison(
        tuple(pair for pair in pairs if pair.planned_bytes or pair.traced_bytes),
        planned.allocated_bytes,
        traced.allocated_bytes,
    )


def _by_kind(memory: RankMemory) -> dict[str, int]:
    kinds = {name: int(getattr(memory, f"{name}_bytes")) for name in (*_STATES, *_REST)}
    for kind, size in memory.activations.items():
        name = _AS_TRACED.get(kind, kind)
        kinds[name] = kinds.get(name, 0) + size
    return kinds
