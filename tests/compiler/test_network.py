"""Exchanges: their volumes, the links they take, and that a better link is never slower."""

import msgspec
import numpy as np
import pytest

from trainwright.compiler.cost.network import Group, Network, exposed
from trainwright.spec.device import HardwareFile, Link, Links

GB = 1e9
NEAR = Link(bytes_per_s=100 * GB, share=1.0, latency_s=0.0, hop_s=0.0)
FAR = Link(bytes_per_s=10 * GB, share=1.0, latency_s=0.0, hop_s=0.0)


def network(near: Link = NEAR, far: Link | None = FAR, per_node: int = 8) -> Network:
    return Network(HardwareFile(name="x", links=Links(device=near, network=far, domain=per_node)), per_node)


def test_rings_on_a_node_move_what_the_formulas_say() -> None:
    group = Group(4)
    assert network().all_gather(8 * GB, group) == pytest.approx(3 / 4 * 8 / 100)
    assert network().all_reduce(8 * GB, group) == pytest.approx(2 * 3 / 4 * 8 / 100)
    assert network().all_to_all(8 * GB, group) == pytest.approx(3 / 4 * 8 / 100)
    assert network().send(8 * GB, 1) == pytest.approx(8 / 100)


def test_a_group_of_one_exchanges_nothing() -> None:
    slow = network(Link(bytes_per_s=1.0, latency_s=5.0, hop_s=5.0), Link(bytes_per_s=1.0, latency_s=5.0))
    for exchange in (slow.all_gather, slow.all_reduce, slow.all_to_all, slow.broadcasts):
        assert exchange(8 * GB, Group(1)) == 0


def test_a_ring_over_nodes_uses_a_card_for_each_of_its_ranks_on_a_node() -> None:
    """Eight ranks a node have 8 * 10 GB/s, which is less than 100; one rank a node has 10."""
    assert network().all_gather(8 * GB, Group(16)) == pytest.approx(15 / 16 * 8 / 80)
    assert network().all_gather(8 * GB, Group(2, stride=8)) == pytest.approx(1 / 2 * 8 / 10)
    assert network().nodes(Group(16, stride=4)) == (2, 8)


def test_reducing_over_nodes_moves_what_reducing_inside_them_first_would() -> None:
    """2 * (k-1)/k * S/g over each card, for k nodes of g ranks: equal to the ring's but for the ranks' own share."""
    nodes, ranks, size = 64, 8, 8 * GB
    hierarchical = 2 * (nodes - 1) / nodes * size / ranks / FAR.bytes_per_s
    assert network().all_reduce(size, Group(nodes * ranks)) == pytest.approx(hierarchical, rel=0.02)


def test_the_latency_of_a_ring_grows_with_its_ranks_and_that_of_reducing_hardly() -> None:
    slow = network(msgspec.structs.replace(NEAR, hop_s=1e-6), msgspec.structs.replace(FAR, hop_s=1e-5))
    gathers = [slow.all_gather(1.0, Group(size)) for size in (64, 512, 4096)]
    reductions = [slow.all_reduce(1.0, Group(size)) for size in (64, 512, 4096)]
    assert gathers[2] / gathers[0] == pytest.approx(64, rel=0.1)
    assert reductions[2] / reductions[0] < 4


def test_exchanges_between_nodes_fall_back_to_the_only_link_there_is() -> None:
    assert network(far=None).all_gather(8 * GB, Group(16)) == pytest.approx(15 / 16 * 8 / 100)


@pytest.mark.parametrize("size", [1, 2, 8, 16, 1000])
@pytest.mark.parametrize("field", ["bytes_per_s", "share"])
def test_a_better_link_is_never_slower(size: int, field: str) -> None:
    link = Link(bytes_per_s=10 * GB, share=0.4)
    better = msgspec.structs.replace(link, **{field: 2 * getattr(link, field)})
    for one, other in ((network(link, link), network(better, link)), (network(link, link), network(link, better))):
        for name in ("all_gather", "all_reduce", "all_to_all"):
            assert getattr(other, name)(1 * GB, Group(size)) <= getattr(one, name)(1 * GB, Group(size))


def test_arrays_are_priced_as_numbers_are() -> None:
    sizes, strides = np.array([1, 2, 8, 64, 512]), np.array([1, 2, 1, 8, 4])
    link = network(Link(bytes_per_s=9 * GB, latency_s=1e-5), Link(bytes_per_s=1 * GB, latency_s=2e-5))
    for name in ("all_gather", "all_reduce", "all_to_all"):
        exchange = getattr(link, name)
        single = [exchange(3e8, Group(int(n), int(stride))) for n, stride in zip(sizes, strides, strict=True)]
        assert exchange(3e8, Group(sizes, strides)) == pytest.approx(single)


def test_what_is_hidden_still_takes_from_the_computation_beside_it() -> None:
    assert exposed(3.0, 10.0, 0.0) == 3.0
    assert exposed(3.0, 10.0, 1.0) == pytest.approx(0.15 * 3.0)
    assert exposed(3.0, 2.0, 0.5) == pytest.approx(2.0 + 0.15 * 1.0)
