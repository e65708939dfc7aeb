"""Seconds of exchanges between ranks: latency and volume over the links that a group spans.

    t = latency_s + steps * hop_s + wire bytes / (bytes_per_s * share)

Volumes of rings per rank, S the whole buffer and n the ranks: all-gather and reduce-scatter (n-1)/n * S, all-reduce
twice that, all-to-all (n-1)/n of what a rank sends. A group of n ranks with g on a node spans k = n/g nodes. Across
nodes the ring is cut into as many as there are ranks, and so network cards, on a node: it runs at the slower of a
device link and g network links. That moves the same bytes over a card as reducing inside nodes first would.

Latency: a ring takes n-1 steps, of which k leave a node; all-reduce of many nodes goes over trees instead, whose
depth is log2(k). Fits to published tables: `bench/fit_efficiency.py`.
"""

from dataclasses import dataclass

from trainwright.compiler.cost.numeric import Number, log2, maximum, minimum, where
from trainwright.spec.device import HardwareFile, Link

# An exchange takes multiprocessors and bandwidth from the computation beside it: Calculon (SC'23) has 15 % on NVLink.
_CONTENTION = 0.15
_NOTHING = Link(bytes_per_s=1e18, share=1.0, latency_s=0.0, hop_s=0.0)


@dataclass(frozen=True, slots=True)
class Group:
    """Ranks that exchange: `size` of them, each `stride` ranks after the one before."""

    size: Number
    stride: Number = 1


class Network:
    """The links of a cluster of one kind of device, with `gpus_per_node` of them on a node."""

    def __init__(self, hardware: HardwareFile, gpus_per_node: int) -> None:
        links = hardware.links
        self.near = links.device or links.network or _NOTHING
        self.far = links.network or links.device or _NOTHING
        self.per_node = max(gpus_per_node, links.domain or 1)

    def nodes(self, group: Group) -> tuple[Number, Number]:
        """Ranks of the group on a node, and the nodes it spans."""
        fitting = maximum(1, self.per_node // group.stride)
        on_node = minimum(group.size, fitting)
        return on_node, group.size / on_node

    def all_gather(self, size_bytes: Number, group: Group) -> Number:
        """`size_bytes` whole, of which each rank gives its share. As long as the reduce-scatter of as much."""
        return self._ring(size_bytes, group, 1, self._ring_latency(group))

    def all_reduce(self, size_bytes: Number, group: Group) -> Number:
        on_node, nodes = self.nodes(group)
        ring = 2 * self._ring_latency(group) - self._start(nodes)
        tree = self._start(nodes) + 2 * (on_node - 1) * self.near.hop_s + 2 * log2(nodes) * self.far.hop_s
        return self._ring(size_bytes, group, 2, minimum(ring, tree))

    def all_to_all(self, sent_bytes: Number, group: Group) -> Number:
        """`sent_bytes` of each rank, the part that stays among them. Each far rank is reached over one card."""
        on_node, nodes = self.nodes(group)
        size = maximum(group.size, 1)
        near = (on_node - 1) / size * sent_bytes / (self.near.bytes_per_s * self.near.share)
        far = (size - on_node) / size * sent_bytes / (self.far.bytes_per_s * self.far.share)
        latency = self._start(nodes) + (on_node - 1) * self.near.hop_s + (size - on_node) * self.far.hop_s
        return where(group.size > 1, latency + maximum(near, far), 0.0)

    def broadcasts(self, size_bytes: Number, group: Group) -> Number:
        """Each rank in turn sends its share of `size_bytes` to all others, along a chain."""
        return self._ring(size_bytes, group, 1, group.size * self._ring_latency(group))

    def send(self, size_bytes: Number, distance: Number) -> Number:
        """To the rank `distance` ranks away; ranks on one node are near."""
        near = distance < self.per_node
        rate = where(near, self.near.bytes_per_s * self.near.share, self.far.bytes_per_s * self.far.share)
        return where(near, self.near.latency_s, self.far.latency_s) + size_bytes / rate

    def _start(self, nodes: Number) -> Number:
        return where(nodes > 1, self.far.latency_s, self.near.latency_s)

    def _ring_latency(self, group: Group) -> Number:
        _, nodes = self.nodes(group)
        far_steps = where(nodes > 1, nodes, 0)
        return self._start(nodes) + (group.size - 1 - far_steps) * self.near.hop_s + far_steps * self.far.hop_s

    def _ring(self, size_bytes: Number, group: Group, passes: int, latency_s: Number) -> Number:
        on_node, nodes = self.nodes(group)
        size = maximum(group.size, 1)
        near = self.near.bytes_per_s * self.near.share
        rate = where(nodes > 1, minimum(near, on_node * self.far.bytes_per_s * self.far.share), near)
        wire = passes * (size - 1) / size * size_bytes
        return where(group.size > 1, latency_s + wire / rate, 0.0)


def exposed(exchange_s: Number, beside_s: Number, overlap: Number) -> Number:
    """What an exchange adds to the computation beside it, of which the share `overlap` can hide it."""
    hidden = minimum(exchange_s, overlap * beside_s)
    return exchange_s - (1 - _CONTENTION) * hidden
