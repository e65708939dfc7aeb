"""DPO: its loss in closed form, its reference computed once, and the same run under every layout."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from msgspec import structs
from tests.runtime.align.stages import BEGIN, dpo_stage, write_pairs

from trainwright.runtime.align.dpo import DpoObjective
from trainwright.runtime.align.dpo_rows import DpoRows, Lists
from trainwright.runtime.align.packed import PADDING
from trainwright.runtime.train.model import model_of

World = Callable[..., Any]
PAIRS: dict[str, dict[str, Any]] = {
    "DP 2, distributed optimizer": {"data": 2},
    "TP 2 + SP": {"tensor": 2, "sequence_parallel": True, "loss": "fused"},
    "PP 2": {"pipeline": 2},
    "CP 2": {"context": 2},
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_pairs(tmp_path, "train", 40, seed=0)
    write_pairs(tmp_path, "held_out", 10, seed=1)
    return tmp_path


def metrics(out: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name.startswith(("dpo/", "train/loss"))} for row in rows]


def test_a_list_gives_all_its_pairs_and_only_its_answers_count(data: Path) -> None:
    lists = Lists(dpo_stage({}), data, "train", begin=BEGIN)
    assert lists.totals() == {"lists": 40, "pairs": 20 + 20 * 3, "tokens": int(lists.lengths_N.sum()), "left_out": 0}
    rows = DpoRows(dpo_stage({}), lists, epochs=1)
    batch = rows.micro_batch(range(len(rows)))
    owners = batch.owner_D.tolist()
    assert sorted(owner for owner in owners if owner != PADDING) == list(range(100))
    pairs = list(zip(batch.better_P.tolist(), batch.worse_P.tolist(), strict=True))
    assert len(pairs) == 80
    first = lists.first_N.tolist()
    for better, worse in pairs:
        assert owners[better] < owners[worse]
        assert np.searchsorted(first, owners[better], "right") == np.searchsorted(first, owners[worse], "right")
        counted = batch.document_sums(batch.counted_BS)
        assert counted[better] > counted[worse]  # the better answer is the longer one, with its `<|im_end|>`
    assert set(batch.document_sums(batch.counted_BS).tolist()) == {0.0, 2.0, 5.0, 10.0}
    assert batch.source_D.tolist() == [0 if owner != PADDING else -1 for owner in owners]


def test_a_list_that_does_not_fit_is_told(data: Path) -> None:
    stage = dpo_stage({})
    lists = Lists(structs.replace(stage, longest=15), data, "train", begin=BEGIN)
    assert len(lists) == 0
    assert lists.left_out[0] == {
        "source": "pairs",
        "split": "train",
        "id": "list-0",
        "why": "a conversation of 18 tokens is longer than the longest allowed, 15",
    }
    assert len(Lists(structs.replace(stage, sequence_length=34), data, "train", begin=BEGIN)) == 20  # those of two


@pytest.mark.usefixtures("alone")
def test_the_loss_of_a_pair_is_that_of_the_paper_and_so_is_its_gradient(data: Path) -> None:
    stage = dpo_stage({})
    lists = Lists(stage, data, "train", begin=BEGIN)
    rows = DpoRows(stage, lists, epochs=1)
    (chunk,) = model_of(stage, seed=1)
    batch = rows.micro_batch([0, 1])
    output = chunk(batch.tokens_BS, None, batch.edges_BE, labels=batch.labels_BS)
    policy: dict[int, torch.Tensor] = {}
    own: dict[int, torch.Tensor] = {}
    for document, owner in enumerate(batch.owner_D.tolist()):
        if owner == PADDING:
            continue
        here = batch.document_BS == document
        counts = here & (batch.counted_BS > 0)
        policy[document] = -output[counts].double().sum()
        # The document on its own, through the logits.
        tokens = batch.tokens_BS[here][None]
        logits = chunk(tokens, None, None)[0].double().log_softmax(-1)
        labels, marks = batch.labels_BS[here], batch.counted_BS[here].bool()
        own[document] = logits.gather(1, labels[:, None])[marks].sum()
    assert {key: value.item() for key, value in own.items()} == pytest.approx(
        {key: value.item() for key, value in policy.items()}, rel=1e-5
    )
    reference = np.random.default_rng(0).normal(-20, 4, lists.documents)
    ref = {document: reference[batch.owner_D[document]] for document in policy}
    objective = DpoObjective(rows, reference, stage)
    output, loss_of = objective.forward(chunk, batch)
    loss, pairs, kept = loss_of(output)
    margins = [
        stage.beta * ((own[c] - ref[c]) - (own[r] - ref[r]))
        for c, r in zip(batch.better_P.tolist(), batch.worse_P.tolist(), strict=True)
    ]
    expected = torch.stack([(1 + (-margin).exp()).log() for margin in margins]).sum()
    assert int(pairs) == len(margins)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    found = objective.metrics(kept["figures"].tolist())
    assert found["dpo/loss"] == pytest.approx(expected.item() / len(margins), rel=1e-5)
    assert found["dpo/acc"] == np.mean([margin.item() > 0 for margin in margins])
    assert found["dpo/chosen_reward"] - found["dpo/rejected_reward"] == pytest.approx(found["dpo/margin_mean"])
    parameters = list(chunk.parameters())
    for ours, theirs in zip(
        torch.autograd.grad(loss, parameters), torch.autograd.grad(expected, parameters), strict=True
    ):
        torch.testing.assert_close(ours, theirs.float(), rtol=1e-3, atol=1e-5)
    same = DpoObjective(rows, np.array([own_of(policy, batch, owner) for owner in range(lists.documents)]), stage)
    assert loss_of_equal(same, chunk, batch) == pytest.approx(math.log(2), rel=1e-6)


def own_of(policy: dict[int, torch.Tensor], batch: Any, owner: int) -> float:
    """The policy's own figure for a document; 0 for those that are not in the batch."""
    places = {int(number): place for place, number in enumerate(batch.owner_D.tolist())}
    return policy[places[owner]].item() if owner in places else 0.0


def loss_of_equal(objective: DpoObjective, chunk: Any, batch: Any) -> float:
    output, loss_of = objective.forward(chunk, batch)
    return objective.metrics(loss_of(output)[2]["figures"].tolist())["dpo/loss"]


@pytest.mark.slow
def test_every_layout_gives_the_losses_of_one_process_and_goes_on_bit_by_bit(align_world: World, data: Path) -> None:
    job = {"kind": "dpo", "peak": 1e-2, "beta": 0.5}
    outs = [str(data / name) for name in ("one", "killed")]
    (one,) = align_world(1, **job, layouts=[{}], out=outs[:1])
    reference = metrics(data / "one")
    assert one["step"] == len(reference) > 2
    assert reference[0]["dpo/loss"] == pytest.approx(math.log(2), rel=1e-9)  # model and reference are one
    assert reference[0]["dpo/margin_mean"] == pytest.approx(0.0, abs=1e-9)
    assert reference[-1]["dpo/loss"] < 0.5
    assert one["held_out_loss"] < 0.5
    assert one["accuracy"] > 0.9
    assert align_world(1, **job, layouts=[{}], out=outs[1:], every_steps=1, kill_after=3) is None
    (killed,) = align_world(1, **job, layouts=[{}], out=outs[1:])
    assert killed["continued_from"] == 2
    assert metrics(data / "killed") == reference
    names = [str(data / name) for name in PAIRS]
    for name, summary in zip(PAIRS, align_world(2, **job, layouts=list(PAIRS.values()), out=names), strict=True):
        assert metrics(data / name) == [pytest.approx(row, rel=1e-5, abs=1e-5) for row in reference], name
        assert summary["held_out_loss"] == pytest.approx(one["held_out_loss"], rel=1e-5), name
        assert summary["consumed_tokens"] == one["consumed_tokens"] == one["ledger"]["train"]["tokens"], name
