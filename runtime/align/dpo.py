"""Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290): preferences without a reward model.

The loss of a pair is -log sigmoid(beta ((pi_c - ref_c) - (pi_r - ref_r))), where pi and ref are the log-probabilities
of the chosen and of the rejected answer under the model and under the one it started from. A list of k answers gives
all its k (k - 1) / 2 pairs, each answer computed once. The loss of a step is the mean over all of its pairs.

B rows of a micro-batch, S their positions, D documents, P pairs, K sources.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from numpy.typing import NDArray
from torch import Tensor, distributed
from torch.nn import functional

from trainwright.runtime import host
from trainwright.runtime.align.data.rows import SPLITS
from trainwright.runtime.align.dpo_reference import REFERENCE_FILE, log_probabilities, reference_of
from trainwright.runtime.align.dpo_rows import DpoBatch, DpoRows, Lists
from trainwright.runtime.align.ledger import write_ledger
from trainwright.runtime.align.packed import PADDING, as_long_as, own_rows
from trainwright.runtime.data.errors import DataError
from trainwright.runtime.train import parallel
from trainwright.runtime.train.loop import run
from trainwright.runtime.train.objective import Figures, LossOf
from trainwright.runtime.train.step import evaluate
from trainwright.runtime.train.summary import PhaseSummary
from trainwright.spec.plan import DpoStage, Estimate

_FIGURES = ("loss", "right", "margin", "chosen", "rejected", "pairs")


def train(
    stage: DpoStage,
    *,
    inputs: Mapping[str, Path],
    begin: int,
    estimate: Estimate | None,
    out: Path,
    run_folder: Path,
    should_stop: Callable[[], bool],
) -> PhaseSummary:
    """`out` holds checkpoints, metrics, the reference and the ledger; the summary has held-out loss and accuracy too.

    `inputs`: the folders of the stages it needs, by name; `begin`: the token `<s>`; `host.install` has run. For the
    rest see `trainwright.runtime.train.phase.train`. Raises PhaseError, DataError, UnsupportedLayoutError.
    """
    assert stage.start_from is not None  # the compiler always names one
    start = inputs[stage.start_from]
    parallel.initialize(stage.layout, seed=stage.seed)
    lists = {split: Lists(stage, inputs["conversations"], split, begin=begin) for split in SPLITS}
    if not len(lists["train"]):
        raise DataError(f"stage `{stage.name}` has no pair to train on")
    totals = {split: part.totals() for split, part in lists.items()}
    if distributed.get_rank() == 0:
        write_ledger(out, totals, [row for part in lists.values() for row in part.left_out])
    reference = reference_of(stage, lists, start, out / REFERENCE_FILE)
    rows = DpoRows(stage, lists["train"], epochs=stage.epochs)

    def finish(chunks: list[GPTModel]) -> dict[str, Any]:
        return {"ledger": totals, **_held_out(stage, chunks, lists["held_out"], reference["held_out"])}

    summary = run(
        as_long_as(stage, len(rows)),
        DpoObjective(rows, reference["train"], stage),
        estimate=estimate,
        start=start,
        out=out,
        run_folder=run_folder,
        should_stop=should_stop,
        weights_only=True,
        finish=finish,
    )
    parallel.finalize()
    return summary


class DpoObjective:
    """Mean loss over the pairs of a step. `reference_D`: the log-probabilities of all documents under the start."""

    def __init__(self, rows: DpoRows, reference_D: NDArray[np.float64], stage: DpoStage) -> None:
        self._rows, self._stage = rows, stage
        self._reference_D = torch.from_numpy(reference_D).to(host.device())

    @property
    def figures(self) -> int:
        """Sums over the pairs as `_FIGURES` names them, and the tokens of each source."""
        return len(_FIGURES) + len(self._stage.data)

    def micro_batches(self, step: int) -> list[DpoBatch]:
        return [self._rows.micro_batch(numbers) for numbers in own_rows(self._stage, step)]

    def forward(self, chunk: Any, batch: DpoBatch) -> tuple[Tensor, LossOf]:
        output = chunk(batch.tokens_BS, None, batch.edges_BE, labels=batch.labels_BS)
        return output, partial(self._loss, batch)

    def _loss(self, batch: DpoBatch, loss_BS: Tensor) -> tuple[Tensor, Tensor, Figures]:
        policy_D = log_probabilities(batch, loss_BS)
        reward_D = self._stage.beta * (policy_D - self._reference_D[batch.owner_D])
        chosen_P, rejected_P = reward_D[batch.better_P], reward_D[batch.worse_P]
        margin_P = chosen_P - rejected_P
        loss = -functional.logsigmoid(margin_P).sum()
        pairs = torch.tensor(len(margin_P), dtype=torch.int, device=loss.device)
        # Every context rank has the whole of all pairs; the first one counts them.
        first = parallel_state.get_context_parallel_rank() == 0
        sums = (loss, (margin_P > 0).sum(), margin_P.sum(), chosen_P.sum(), rejected_P.sum(), pairs)
        figures = torch.stack([value.detach().double() for value in sums]) * first
        sources = len(self._stage.data)
        tokens_K1 = figures.new_zeros(sources + 1)  # padding is last
        source_D = batch.source_D.where(batch.source_D != PADDING, sources)
        tokens_K1.index_add_(0, source_D, batch.document_sums(torch.ones_like(loss_BS)))
        return loss.float(), pairs * first, {"figures": torch.cat((figures, tokens_K1[:-1]))}

    def metrics(self, figures: Sequence[float]) -> dict[str, float]:
        *sums, pairs = figures[: len(_FIGURES)]
        loss, right, margin, chosen, rejected = (value / max(1.0, pairs) for value in sums)
        return {
            "train/loss": loss,
            "dpo/loss": loss,
            "dpo/acc": right,
            "dpo/margin_mean": margin,
            "dpo/chosen_reward": chosen,
            "dpo/rejected_reward": rejected,
            "dpo/pairs": pairs,
        }

    def consumed(self, figures: Sequence[float]) -> dict[str, int]:
        return dict(zip(self._stage.data, map(int, figures[len(_FIGURES) :]), strict=True))


def _held_out(
    stage: DpoStage, chunks: list[GPTModel], lists: Lists, reference_D: NDArray[np.float64]
) -> dict[str, Any]:
    """Loss and accuracy on held-out pairs; None without any."""
    if not len(lists):
        return {"held_out_loss": None, "accuracy": None}
    rows = DpoRows(stage, lists, epochs=1)
    objective = DpoObjective(rows, reference_D, stage)
    metrics = objective.metrics(evaluate(chunks, objective, as_long_as(stage, len(rows)).steps))
    return {"held_out_loss": metrics["dpo/loss"], "accuracy": metrics["dpo/acc"]}
