"""What a search over layouts is asked."""

from dataclasses import dataclass
from typing import Literal

from trainwright.spec.auto import SEARCHED_KEYS
from trainwright.spec.plan import ModelPlan
from trainwright.spec.topology import Topology

Objective = Literal["time", "cost", "gpus"]


@dataclass(frozen=True)
class Request:
    """What the command line asks of the search."""

    objective: Objective = "time"
    top: int = 5
    everything: bool = False  # also layouts that the runtime cannot execute yet


@dataclass(frozen=True)
class Question:
    """One phase to be laid out on one cluster. The `"auto"` values of its topology are free, all others are pinned."""

    phase: str
    model: ModelPlan
    precision: Literal["bf16", "fp32"]
    sequence_length: int
    sequences: int  # of a step
    steps: int
    topology: Topology
    nodes: int
    gpus_per_node: int
    storage_bytes_per_s: float  # of all nodes together
    everything: bool = False
    loss: Literal["auto", "logits", "fused"] = "auto"

    @property
    def world_size(self) -> int:
        return self.nodes * self.gpus_per_node


def is_open(topology: Topology) -> bool:
    """Whether a size is left open, so that the layout is to be searched for; then every `"auto"` in it is free."""
    unsharded = ("zero_group",) if topology.zero == 0 else ()
    return any(getattr(topology, key) == "auto" for key in SEARCHED_KEYS if key not in unsharded)
