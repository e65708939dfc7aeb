"""How context ranks attend to each other's tokens, where the spec leaves it open."""

from typing import Literal

from trainwright.spec.topology import Topology


def context_exchange(topology: Topology) -> Literal["gather", "ring", "all_to_all"]:
    """As written; else heads for tokens in InternEvo's `isp`, and gathered keys and values in our own words.

    To gather takes one call of attention where a ring takes one for each rank, at the price of a layer's keys and
    values whole for a moment: 4 KB a token with 8 heads of 128.
    """
    if topology.context_exchange != "auto":
        return topology.context_exchange
    return "all_to_all" if topology.tensor_mode == "isp" else "gather"
