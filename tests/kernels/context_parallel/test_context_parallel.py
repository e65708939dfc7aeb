"""Attention over a sequence that is cut over ranks equals one call, forward and backward, by every exchange."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
import torch
from tests.worlds import Worlds

from trainwright.kernels.context_parallel.exchange import by_rank, in_order
from trainwright.kernels.context_parallel.local import local_attention
from trainwright.kernels.context_parallel.zigzag import block, gathered, positions
from trainwright.kernels.packing import Packing
from trainwright.kernels.reference import attend


@pytest.mark.parametrize("ranks", [2, 4])
def test_every_exchange_equals_one_call(ranks: int, worlds: Worlds, tmp_path: Path) -> None:
    job = tmp_path / "job"
    assert worlds.run("tests.kernels.context_parallel.ranks", ranks, job)
    result = json.loads(job.with_suffix(".result").read_text())
    assert len(result["differences"]) == (4 if ranks == 2 else 6) * 10
    for case, apart in result["differences"].items():
        assert max(apart) < (2e-2 if case.endswith("bf16") else 1e-12), (case, apart)
    assert result["refused"] == f"3 heads cannot be shared by {ranks} ranks"


def test_a_rank_holds_an_early_and_a_late_slice() -> None:
    assert positions(16, 1, 4).tolist() == [2, 3, 12, 13]
    with pytest.raises(ValueError, match="a sequence of 12 tokens cannot be cut into 2 x 4 slices"):
        positions(12, 0, 4)
    whole = torch.arange(16)
    held = torch.stack([positions(16, rank, 4) for rank in range(4)])
    assert torch.equal(by_rank(whole, 4), held)
    assert torch.equal(in_order(held), whole)


def test_ranks_side_by_side_hold_what_one_of_fewer_would() -> None:
    inside = torch.stack([positions(16, rank, 4) for rank in (2, 3)])
    assert torch.equal(in_order(inside), positions(16, 1, 2))


def test_gathered_documents_end_where_a_slice_ends() -> None:
    early, late = gathered(((0, 3, 12, 16),), 1, 2)  # slices [4, 8) and [8, 12)
    assert early == ((0, 0, 4, 3, 5),)
    assert late == ((0, 4, 4, 3, 9),)


def test_a_block_of_the_ring_is_one_run_a_document() -> None:
    edges = ((0, 3, 12, 16),)  # rank 0 of 2 holds [0, 4) and [12, 16), rank 1 [4, 8) and [8, 12)
    assert block(edges, 0, 0, 2).documents == ((0, 0, 3, 0, 3), (0, 3, 1, 3, 1), (0, 4, 4, 4, 4))
    assert block(edges, 0, 0, 2).causal
    assert block(edges, 1, 0, 2).documents == ((0, 0, 8, 3, 1),)
    assert not block(edges, 1, 0, 2).causal
    assert block(edges, 0, 1, 2) == block(((0, 3, 12, 16),), 0, 1, 2)
    assert (block(edges, 0, 1, 2).first_query, block(edges, 0, 1, 2).documents) == (4, ())


def test_the_work_of_ranks_is_even() -> None:
    """Pairs of a query and a key that it sees, over all blocks of the ring."""

    def pairs(rank: int) -> float:
        total = 0.0
        for other in range(4):
            part = block(((0, 64),), rank, other, 4)
            for _, _, queries, _, keys in part.documents:
                total += queries * (queries + 1) / 2 if part.causal else queries * keys
        return total

    assert len({pairs(rank) for rank in range(4)}) == 1


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("name", ["reference", "sdpa"])
def test_local_attention_is_the_reference_with_its_log_sum_exp(
    name: Literal["reference", "sdpa"], causal: bool
) -> None:
    torch.manual_seed(0)
    documents = ((0, 0, 3, 0, 5), (0, 4, 2, 6, 2), (1, 1, 5, 0, 9))  # with gaps; queries align to the last key
    q, k, v = (
        torch.randn(2, length, heads, 4, dtype=torch.float64, requires_grad=True)
        for length, heads in ((6, 4), (9, 2), (9, 2))
    )
    o, lse = attend(q, k, v, Packing(torch.tensor(documents, dtype=torch.int32)), scale=0.7, causal=causal)
    go = torch.randn_like(o)
    expected = torch.autograd.grad(o, (q, k, v), go)
    local = local_attention(name, torch.float64, torch.device("cpu"))
    q, k, v = q.detach(), k.detach(), v.detach()
    own_o, own_lse = local.forward(q, k, v, documents, 0.7, causal)
    torch.testing.assert_close((own_o, own_lse), (o.detach(), lse.detach()))
    torch.testing.assert_close(local.backward(go, q, k, v, own_o, own_lse, documents, 0.7, causal), expected)


def test_the_portable_kernels_are_a_local_attention() -> None:
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("portable.py"))],
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
    )
    apart = json.loads(done.stdout)
    assert len(apart) == 10
    assert max(apart) < 1e-5, apart
