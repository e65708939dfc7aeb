"""How context ranks attend to each other's tokens, where the spec leaves it open."""

from typing import Literal

from trainwright.spec.topology import Topology


def context_exchange(topology: Topology) -> Literal["gather", "ring", "all_to_all"]:
    """As written, unless all of them exchange heads; if open, heads for tokens in `isp`, else gathered keys.

    To gather takes one call of attention where a ring takes one for each rank, at the price of a layer's keys and
    values whole for a moment: 4 KB a token with 8 heads of 128.
    """
    if topology.context == topology.context_heads > 1:
        return "all_to_all"
    if topology.context_exchange != "auto":
        return topology.context_exchange
    return "all_to_all" if topology.tensor_mode == "isp" else "gather"


def context_heads(topology: Topology) -> int:
    """As written, where they are some of several: in a search some layouts have but one."""
    return 1 if topology.context in (1, topology.context_heads) else topology.context_heads


def head_ranks(topology: Topology, context: int) -> int:
    """Of so many context ranks those that share the heads of a tensor rank."""
    if context == 1:
        return 1
    return context if context_exchange(topology) == "all_to_all" else topology.context_heads
