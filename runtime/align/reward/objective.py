"""The objective of a reward model: mean ranking loss of all pairs of a step + weight * mean barrier of all its scores.

Both means are over the whole step, so a rank whose rows hold many pairs counts for as many. A list of k answers gives
all its k (k - 1) / 2 pairs, and each counts like any other pair: as if the list had been written out as pairs. A margin
is between the first answer and any other. Its answers' scores count once each.

B: rows of a micro-batch, N: conversations, P: pairs, K: sources, in the order of `RankedLists.names`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from megatron.core import parallel_state
from torch import Tensor

from trainwright.runtime import host
from trainwright.runtime.align.reward.losses import barrier, is_saturated, ordered_pairs, ranking_loss
from trainwright.runtime.align.reward.ranked import RankedList, RankedLists, Schedule
from trainwright.runtime.align.reward.rows import Packed, packed, scores_at_ends
from trainwright.runtime.train.language import own_places
from trainwright.runtime.train.objective import Figures, LossOf
from trainwright.spec.plan import RewardStage

_FIGURES = ("ranking", "penalty", "pairs", "scores", "right", "chosen", "rejected", "saturated")


@dataclass(frozen=True)
class RewardBatch(Packed):
    """Pairs are places among the scores; `pairs_per_score` is that of the whole step."""

    better_P: Tensor
    worse_P: Tensor
    margin_P: Tensor
    tokens_K: Tensor  # float64, on the device
    pairs_per_score: float


class RewardObjective:
    """The lists of a stage, shared out over its data ranks."""

    def __init__(self, stage: RewardStage, lists: RankedLists, schedule: Schedule) -> None:
        self._stage, self._lists, self._schedule = stage, lists, schedule

    @property
    def figures(self) -> int:
        """Sums over the step, as `_FIGURES` names them, and the tokens of each source."""
        return len(_FIGURES) + len(self._lists.names)

    def micro_batches(self, step: int) -> list[RewardBatch]:
        size = self._stage.layout.micro_batch
        pairs, scores = self._schedule.counts(step)
        return [
            self._batch(self._schedule.rows(step, at, at + size), pairs / scores)
            for at in own_places(self._stage.layout)
        ]

    def forward(self, chunk: Any, batch: RewardBatch) -> tuple[Tensor, LossOf]:
        return chunk(batch.tokens_BS, None, batch.edges_BE), partial(self._loss, batch)

    def metrics(self, figures: Sequence[float]) -> dict[str, float]:
        of = dict(zip(_FIGURES, figures, strict=False))
        pairs, scores = of["pairs"], of["scores"]
        ranking, penalty = of["ranking"] / pairs, of["penalty"] / scores
        loss = ranking + self._stage.barrier_weight * penalty
        return {
            "train/loss": loss,
            "rm/loss": loss,
            "rm/ranking_loss": ranking,
            "rm/penalty": penalty,
            "rm/acc": of["right"] / pairs,
            "rm/chosen_mean": of["chosen"] / pairs,
            "rm/rejected_mean": of["rejected"] / pairs,
            "rm/margin_mean": (of["chosen"] - of["rejected"]) / pairs,
            "rm/saturated_pct": 100.0 * of["saturated"] / scores,
        }

    def consumed(self, figures: Sequence[float]) -> dict[str, int]:
        return dict(zip(self._lists.names, map(int, figures[len(_FIGURES) :]), strict=True))

    def _batch(self, rows: Sequence[Sequence[int]], pairs_per_score: float) -> RewardBatch:
        lists = [[self._lists[number] for number in row] for row in rows]
        whole = packed([[tokens for ranked in row for tokens in ranked.conversations] for row in lists], self._length)
        better_P, worse_P, margin_P = _pairs([ranked for row in lists for ranked in row])
        tokens_K = torch.zeros(len(self._lists.names), dtype=torch.float64)
        for row in lists:
            for ranked in row:
                tokens_K[ranked.source] += sum(len(tokens) for tokens in ranked.conversations)
        device = host.device()
        return RewardBatch(
            **vars(whole),
            better_P=better_P.to(device),
            worse_P=worse_P.to(device),
            margin_P=margin_P.to(device),
            tokens_K=tokens_K.to(device),
            pairs_per_score=pairs_per_score,
        )

    @property
    def _length(self) -> int:
        return self._stage.sequence_length

    def _loss(self, batch: RewardBatch, scores_BS: Tensor) -> tuple[Tensor, Tensor, Figures]:
        """The engine divides by the step's pairs; the barrier's sum is brought to that divisor here."""
        stage = self._stage
        scores_N = scores_at_ends(scores_BS, batch)
        chosen_P, rejected_P = scores_N[batch.better_P], scores_N[batch.worse_P]
        ranking = ranking_loss(chosen_P, rejected_P, batch.margin_P, stage.focal_gamma).sum()
        penalty = barrier(scores_N, stage.barrier_bound).sum()
        sums = (
            ranking,
            penalty,
            torch.tensor(float(len(chosen_P))),
            torch.tensor(float(len(scores_N))),
            (chosen_P > rejected_P).sum(),
            chosen_P.sum(),
            rejected_P.sum(),
            is_saturated(scores_N, stage.barrier_bound).sum(),
        )
        figures = torch.cat(
            [torch.stack([value.detach().to(scores_N.device).double() for value in sums]), batch.tokens_K]
        )
        count = torch.tensor(len(chosen_P), dtype=torch.int, device=scores_N.device)
        if parallel_state.get_context_parallel_rank() > 0:  # all have made the same of the same scores
            figures, count = torch.zeros_like(figures), torch.zeros_like(count)
        return ranking + stage.barrier_weight * batch.pairs_per_score * penalty, count, {"figures": figures}


def _pairs(lists: Sequence[RankedList]) -> tuple[Tensor, Tensor, Tensor]:
    """better_P, worse_P among all conversations of the lists, and margin_P."""
    better, worse, margins = [], [], []
    first = 0
    for ranked in lists:
        for above, below in ordered_pairs(len(ranked.conversations)):
            better.append(first + above)
            worse.append(first + below)
            margins.append(ranked.margin if above == 0 else 0.0)
        first += len(ranked.conversations)
    return torch.tensor(better, dtype=torch.int64), torch.tensor(worse, dtype=torch.int64), torch.tensor(margins)
