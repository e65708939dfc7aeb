"""Supervised fine-tuning trains what the assistant says, once an epoch, and the same under every layout."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.runtime.align.stages import LENGTH, sft_stage, write_conversations

from trainwright.runtime.align.data.rows import Conversations
from trainwright.runtime.align.packed import PADDING, PackedMicroBatch, as_long_as
from trainwright.runtime.align.sft import SftObjective
from trainwright.runtime.align.sft_rows import SftRows, Talk
from trainwright.runtime.data.errors import DataError
from trainwright.runtime.data.indexed import tokens_path, write_documents
from trainwright.runtime.train.model import model_of

World = Callable[..., Any]
PAIRS: dict[str, dict[str, Any]] = {
    "DP 2, distributed optimizer": {"data": 2},
    "TP 2 + SP": {"tensor": 2, "sequence_parallel": True},
    "PP 2 x VPP 2": {"pipeline": 2, "virtual_pipeline": 2, "schedule": "interleaved", "loss": "fused"},
    "CP 2": {"context": 2},
}
BF16: list[dict[str, Any]] = [{"data": 2, "precision": "bf16"}, {"data": 2, "zero": 0, "precision": "bf16"}]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for seed, source in enumerate(("talk", "code")):
        write_conversations(tmp_path, source, "train", 36, seed=seed)
        write_conversations(tmp_path, source, "held_out", 6, seed=10 + seed)
    random = np.random.default_rng(3)
    documents = [np.cumsum(random.integers(1, 3, 90)) % 250 for _ in range(40)]
    write_documents(tokens_path(tmp_path, "books", "train"), documents, np.dtype(np.uint16))
    return tmp_path


def rows_of(data: Path, **changes: Any) -> SftRows:
    stage = sft_stage(changes)
    talk = Talk(stage, data, "train")
    return SftRows(stage, talk, epochs=stage.epochs, tokenized=data if stage.long_mixture else None)


def metrics(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def losses(out: Path) -> list[float]:
    return [row["train/loss"] for row in metrics(out)]


def test_every_conversation_is_there_once_an_epoch_in_an_order_of_its_own(data: Path) -> None:
    one, two = rows_of(data), rows_of(data, epochs=2)
    whole = Counter(
        tuple(row.tokens_L.tolist()) for name in ("talk", "code") for row in Conversations(data, name, "train")
    )

    def seen(rows: SftRows, numbers: range) -> list[tuple[int, ...]]:
        batches = [rows.micro_batch([number]) for number in numbers]
        return [
            tuple(batch.tokens_BS[batch.document_BS == document].tolist())
            for batch in batches
            for document, owner in enumerate(batch.owner_D.tolist())
            if owner != PADDING
        ]

    first = seen(one, range(len(one)))
    both = seen(two, range(len(two)))
    assert Counter(first) == whole
    assert both[: len(first)] == first
    assert Counter(both[len(first) :]) == whole
    assert both[len(first) :] != first
    assert rows_of(data).micro_batch([len(one)]).owner_D.tolist() == [PADDING]  # beyond the last


def test_only_what_the_assistant_says_counts(data: Path) -> None:
    rows = rows_of(data)
    trained = {
        (*row.tokens_L.tolist(),): row.trained_L.tolist()
        for name in ("talk", "code")
        for row in Conversations(data, name, "train")
    }
    batch = rows.micro_batch(range(len(rows)))
    counted = batch.counted_BS.bool()
    for document, owner in enumerate(batch.owner_D.tolist()):
        here = batch.document_BS == document
        if owner == PADDING:
            assert not counted[here].any()
        else:
            tokens = batch.tokens_BS[here].tolist()
            assert counted[here].tolist() == [*trained[(*tokens,)][1:], False]
    assert batch.labels_BS[counted].tolist() == batch.tokens_BS.roll(-1, 1)[counted].tolist()


def test_long_text_comes_in_whole_rows_evenly_and_counts_throughout(data: Path) -> None:
    rows = rows_of(data, long_mixture={"books": 1.0}, long_share=0.25)
    totals = rows.totals()
    assert totals["long_share"] == pytest.approx(0.25, abs=LENGTH / totals["tokens"])
    batches = [rows.micro_batch([number]) for number in range(len(rows))]
    places = [number for number, batch in enumerate(batches) if (batch.owner_D == 2).all()]
    assert len(places) == totals["long_rows"] > 4
    assert max(np.diff(places)) - min(np.diff(places)) <= 1
    for place in places:
        starts = int(batches[place].owner_D.numel()) - 1
        assert batches[place].counted_BS.sum() >= LENGTH - starts - 1


def test_without_conversations_there_is_nothing_to_train(tmp_path: Path) -> None:
    for source in ("talk", "code"):
        write_conversations(tmp_path, source, "train", 0, seed=0)
    with pytest.raises(DataError, match="stage `sft` has no conversation to train on"):
        rows_of(tmp_path)


def gradients(objective: SftObjective, chunk: Any, batch: PackedMicroBatch) -> tuple[float, int, list[torch.Tensor]]:
    """Summed loss, counted tokens and gradients of one micro-batch."""
    chunk.zero_grad()
    output, loss_of = objective.forward(chunk, batch)
    loss, counted, _ = loss_of(output)
    torch.autograd.backward(loss)
    return float(loss.detach()), int(counted), [parameter.grad.clone() for parameter in chunk.parameters()]


@pytest.mark.usefixtures("alone")
def test_packed_equals_unpacked_and_other_labels_change_nothing(data: Path) -> None:
    stage = sft_stage({})
    rows = rows_of(data)
    objective = SftObjective(rows, stage)
    (chunk,) = model_of(stage, seed=1)
    packed = rows.micro_batch(range(2))
    loss, counted, gradient = gradients(objective, chunk, packed)
    own_loss, own_counted, own_gradient = 0.0, 0, [torch.zeros_like(part) for part in gradient]
    for document, owner in enumerate(packed.owner_D.tolist()):
        if owner == PADDING:
            continue
        here = packed.document_BS == document
        tokens, labels, marks = (part[here][None] for part in (packed.tokens_BS, packed.labels_BS, packed.counted_BS))
        alone = PackedMicroBatch(tokens, labels, marks, torch.zeros_like(tokens), packed.owner_D[:1], None)
        one_loss, one_counted, one_gradient = gradients(objective, chunk, alone)
        own_loss, own_counted = own_loss + one_loss, own_counted + one_counted
        own_gradient = [a + b for a, b in zip(own_gradient, one_gradient, strict=True)]
    assert counted == own_counted > 0
    assert loss == pytest.approx(own_loss, rel=1e-5)
    for ours, theirs in zip(gradient, own_gradient, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    other = replace(packed, labels_BS=packed.labels_BS.where(packed.counted_BS > 0, 7))
    assert gradients(objective, chunk, other)[0] == loss
    wrong = replace(packed, labels_BS=packed.labels_BS.where(packed.counted_BS == 0, 7))
    assert gradients(objective, chunk, wrong)[0] != loss


@pytest.mark.slow
def test_every_layout_gives_the_losses_of_one_process_and_goes_on_bit_by_bit(align_world: World, data: Path) -> None:
    job = {"kind": "sft", "long_mixture": {"books": 1.0}, "long_share": 0.2}
    outs = [str(data / name) for name in ("one", "killed")]
    (one,) = align_world(1, **job, layouts=[{}], out=outs[:1])
    stage = as_long_as(sft_stage(job), len(rows_of(data, **job)))
    assert one["steps"] == one["step"] == stage.steps > 3
    assert align_world(1, **job, layouts=[{}], out=outs[1:], every_steps=2, kill_after=4) is None
    (killed,) = align_world(1, **job, layouts=[{}], out=outs[1:])
    assert killed["continued_from"] == 2
    reference = losses(data / "one")
    assert losses(data / "killed") == reference
    assert killed["held_out_loss"] == one["held_out_loss"] < 0.97 * reference[0]
    names = [str(data / name) for name in PAIRS]
    for name, summary in zip(PAIRS, align_world(2, **job, layouts=list(PAIRS.values()), out=names), strict=True):
        assert losses(data / name) == pytest.approx(reference, rel=1e-5), name
        assert summary["held_out_loss"] == pytest.approx(one["held_out_loss"], rel=1e-5), name
        assert summary["consumed_tokens"] == one["consumed_tokens"] == one["ledger"]["tokens"], name
    # In bf16 the optimizer's masters must be the weights that it starts from, and not those of the seed.
    halves = [str(data / f"bf16-{number}") for number in range(len(BF16))]
    align_world(2, **job, layouts=BF16, out=halves)
    for out in halves:
        assert losses(Path(out)) == pytest.approx(reference, rel=5e-3)
    last = metrics(data / "one")[-1]
    assert 0 < last["train/trained_tokens_pct"] < 100
    assert last["train/padding_pct"] > 0
    ledger = json.loads((data / "one" / "ledger.json").read_text())
    assert ledger["train"]["sources"]["talk"]["used"] == 36
    assert ledger["held_out"]["sources"]["code"]["used"] == 6
