"""Which ranks share what, without their processes."""

from collections.abc import Iterator

import pytest
import torch
from megatron.core import parallel_state
from torch import distributed
from torch.testing._internal.distributed.fake_pg import FakeStore

from trainwright.runtime.train import parallel
from trainwright.spec.plan import Layout


def layout(*, tensor: int = 1, data: int = 1, pipeline: int = 1, zero: int = 1, zero_group: int = 1) -> Layout:
    return Layout(
        tensor=tensor, pipeline=pipeline, virtual_pipeline=1, context=1, data=data, sequence_parallel=False, zero=zero,
        zero_group=zero_group, micro_batch=1, micro_batches=1, recompute="none", schedule="1f1b",
    )  # fmt: skip


@pytest.fixture
def finalized() -> Iterator[None]:
    state = torch.random.get_rng_state()
    yield
    parallel.finalize()
    torch.random.set_rng_state(state)


@pytest.mark.parametrize("rank", [0, 5, 11, 30])
def test_neighbouring_data_ranks_share_an_optimizer_as_planned(rank: int, finalized: None) -> None:
    own = layout(tensor=2, data=8, pipeline=2, zero_group=4)
    distributed.init_process_group("fake", store=FakeStore(), rank=rank, world_size=own.world_size)
    parallel.initialize(own, seed=0)
    at = own.coordinates(rank)
    line = [  # this rank's data axis
        other for other in range(own.world_size)
        if (own.coordinates(other).tensor, own.coordinates(other).pipeline) == (at.tensor, at.pipeline)
    ]  # fmt: skip
    inside = parallel_state.get_data_parallel_group(with_context_parallel=True, partial_data_parallel=True)
    across = parallel_state.get_inter_distributed_optimizer_instance_group()
    assert distributed.get_process_group_ranks(inside) == [
        other for other in line if own.coordinates(other).data // 4 == at.data // 4
    ]
    assert distributed.get_process_group_ranks(across) == [
        other for other in line if own.coordinates(other).data % 4 == at.data % 4
    ]


@pytest.mark.parametrize(
    ("own", "shards", "copies"),
    [
        (layout(data=8, zero_group=8), 8, 1),
        (layout(data=8, zero_group=2), 2, 4),
        (layout(data=8, zero_group=1), 1, 1),  # not sharded, so there are no copies to tell apart
        (layout(data=8, zero=0), 1, 1),
    ],
)
def test_copies_of_the_optimizer(own: Layout, shards: int, copies: int) -> None:
    assert (parallel.optimizer_shards(own), parallel.optimizer_copies(own)) == (shards, copies)
