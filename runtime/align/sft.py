"""Supervised fine-tuning: what the assistant says in conversations, and long text against forgetting.

InternLM2 Technical Report (arXiv 2403.17297), sections 4.1 and 4.3. The loss of a step is the mean over all tokens that
are trained in it: the assistant's, and all of long text. The optimizer starts anew.

B rows of a micro-batch, S their positions, D documents, K sources: those of conversations, then those of long text.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from megatron.core.models.gpt import GPTModel
from torch import Tensor, distributed

from trainwright.runtime.align.ledger import write_ledger
from trainwright.runtime.align.packed import PADDING, PackedMicroBatch, as_long_as, own_rows
from trainwright.runtime.align.sft_rows import SftRows, Talk
from trainwright.runtime.train import parallel
from trainwright.runtime.train.loop import run
from trainwright.runtime.train.objective import Figures, LossOf
from trainwright.runtime.train.step import evaluate
from trainwright.runtime.train.summary import PhaseSummary
from trainwright.spec.plan import Estimate, SftStage


def train(
    stage: SftStage,
    *,
    inputs: Mapping[str, Path],
    estimate: Estimate | None,
    out: Path,
    run_folder: Path,
    should_stop: Callable[[], bool],
) -> PhaseSummary:
    """`out` holds checkpoints, metrics and the ledger; the summary has the loss on held-out conversations too.

    `inputs`: the folders of the stages it needs, by name; `host.install` has run. For the rest see
    `trainwright.runtime.train.phase.train`. Raises PhaseError, DataError, UnsupportedLayoutError.
    """
    assert stage.start_from is not None  # the compiler always names one
    parallel.initialize(stage.layout, seed=stage.seed)
    conversations = inputs["conversations"]
    talk, held_out = (Talk(stage, conversations, split) for split in ("train", "held_out"))
    tokenized = inputs["tokenize"] if stage.long_mixture else None
    rows = SftRows(stage, talk, epochs=stage.epochs, tokenized=tokenized)
    totals = {**_totals(stage, talk), **rows.totals()}
    if distributed.get_rank() == 0:
        write_ledger(
            out,
            {"train": totals, "held_out": _totals(stage, held_out)},
            [row for part in (talk, held_out) for row in part.entries()],
        )

    def finish(chunks: list[GPTModel]) -> dict[str, Any]:
        return {"ledger": totals, **_held_out_loss(stage, chunks, held_out)}

    summary = run(
        as_long_as(stage, len(rows)),
        SftObjective(rows, stage),
        estimate=estimate,
        start=inputs[stage.start_from],
        out=out,
        run_folder=run_folder,
        should_stop=should_stop,
        weights_only=True,
        finish=finish,
    )
    parallel.finalize()
    return summary


class SftObjective:
    """Mean loss over the trained tokens of packed rows."""

    def __init__(self, rows: SftRows, stage: SftStage) -> None:
        self._rows, self._names, self._stage = rows, rows.names, stage

    @property
    def figures(self) -> int:
        """By source: the summed loss in nats, the trained tokens, and all tokens."""
        return 3 * len(self._names)

    def micro_batches(self, step: int) -> list[PackedMicroBatch]:
        return [self._rows.micro_batch(numbers) for numbers in own_rows(self._stage, step)]

    def forward(self, chunk: Any, batch: PackedMicroBatch) -> tuple[Tensor, LossOf]:
        output = chunk(batch.tokens_BS, None, batch.edges_BE, labels=batch.labels_BS)
        return output, partial(self._loss, batch)

    def _loss(self, batch: PackedMicroBatch, loss_BS: Tensor) -> tuple[Tensor, Tensor, Figures]:
        loss_BS = loss_BS * batch.counted_BS
        kinds = (loss_BS.detach(), batch.counted_BS, torch.ones_like(loss_BS))
        sums_3D = torch.stack([batch.document_sums(values_BS) for values_BS in kinds])
        sums_3K1 = sums_3D.new_zeros(3, len(self._names) + 1)  # padding is last
        source_D = batch.owner_D.where(batch.owner_D != PADDING, len(self._names))
        sums_3K1.index_add_(1, source_D, sums_3D)
        return loss_BS.sum(), batch.counted_BS.sum().int(), {"figures": sums_3K1[:, :-1].flatten()}

    def metrics(self, figures: Sequence[float]) -> dict[str, float]:
        losses, trained, tokens = self._by_kind(figures)
        sums = zip(self._names, losses, trained, strict=True)
        positions = self._stage.sequences_per_step * self._stage.sequence_length
        return {
            "train/loss": sum(losses) / max(1.0, sum(trained)),
            **{f"train_loss_by_source/{name}": loss / count for name, loss, count in sums if count},
            "train/trained_tokens_pct": 100.0 * sum(trained) / sum(tokens),
            "train/padding_pct": 100.0 * (1.0 - sum(tokens) / positions),
        }

    def consumed(self, figures: Sequence[float]) -> dict[str, int]:
        return dict(zip(self._names, map(int, self._by_kind(figures)[2]), strict=True))

    def _by_kind(self, figures: Sequence[float]) -> list[Sequence[float]]:
        count = len(self._names)
        return [figures[i * count : (i + 1) * count] for i in range(3)]


def _totals(stage: SftStage, talk: Talk) -> dict[str, Any]:
    return {"sources": {name: talk.ledgers[name].plain() for name in stage.data}}


def _held_out_loss(stage: SftStage, chunks: list[GPTModel], held_out: Talk) -> dict[str, Any]:
    """Mean loss over what the assistant says in held-out conversations, in nats per token; None without any."""
    if not len(held_out):
        return {"held_out_loss": None}
    rows = SftRows(stage, held_out, epochs=1, tokenized=None)
    objective = SftObjective(rows, stage)
    metrics = objective.metrics(evaluate(chunks, objective, as_long_as(stage, len(rows)).steps))
    by_source = {name: metrics.get(f"train_loss_by_source/{name}") for name in rows.names}
    return {"held_out_loss": metrics["train/loss"], "held_out_loss_by_source": by_source}
