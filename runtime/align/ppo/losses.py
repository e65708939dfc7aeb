"""What actor and critic learn in an optimizer step: the formulas of `maths` over packed rows.

B: rows of a micro-batch, S: their positions of this context rank; N: tokens of all answers of the iteration, one answer
after the other; K: sources of pre-training text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainwright.runtime import host
from trainwright.runtime.align.ppo import maths
from trainwright.runtime.align.ppo.rows import Rows
from trainwright.runtime.train.language import LanguageLoss, MicroBatch
from trainwright.runtime.train.objective import Figures, LossOf


@dataclass(frozen=True)
class PolicyTargets:
    """What the actor learns from each token, in fp32 on the device."""

    log_prob_N: Tensor  # of the policy that drew it
    advantage_N: Tensor

    @classmethod
    def of(cls, log_probs_N: NDArray[np.float64], advantages_N: NDArray[np.float64]) -> "PolicyTargets":
        return cls(_on_device(log_probs_N), _on_device(advantages_N))


@dataclass(frozen=True)
class ValueTargets:
    """What the critic learns of each token, in fp32 on the device."""

    value_N: Tensor  # of the critic before it learns
    return_N: Tensor

    @classmethod
    def of(cls, values_N: NDArray[np.float64], returns_N: NDArray[np.float64]) -> "ValueTargets":
        return cls(_on_device(values_N), _on_device(returns_N))


def _on_device(values_N: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(values_N).to(host.device(), torch.float32)


class PolicyLoss:
    """The clipped policy loss, averaged over the tokens of the answers, and in the same step that of text.

    Megatron divides a step's gradients by what was counted in it. Only tokens of answers are counted here, `answers` of
    them; the text's sum is scaled so that it comes out as `weight` times its own mean, over `labels` of all ranks. So
    neither mean depends on how rows are packed and spread.
    """

    OWN = 3  # sums over the tokens of: loss, clipped, KL from the policy that drew them

    def __init__(self, targets: PolicyTargets, clip: float, text: Sequence[str] = (), text_scale: float = 0.0) -> None:
        """`text`: the sources of the text's micro-batches. `text_scale`: weight * answers / labels."""
        self._targets, self._clip, self._text_scale = targets, clip, text_scale
        self._text = LanguageLoss(text)

    @property
    def figures(self) -> int:
        return self.OWN + self._text.figures

    def forward(self, chunk: Any, batch: Rows | MicroBatch) -> tuple[Tensor, LossOf]:
        if isinstance(batch, MicroBatch):
            output, loss_of = self._text.forward(chunk, batch)
            return output, partial(self._loss_of_text, loss_of)
        output = chunk(batch.tokens_BS, None, batch.edges_BE, labels=batch.labels_BS)
        return output, partial(self._loss, batch)

    def _loss(self, rows: Rows, loss_BS: Tensor) -> tuple[Tensor, Tensor, Figures]:
        counted_BS = rows.counted_BS
        places_N = rows.place_BS[counted_BS]
        terms = maths.policy_terms(
            -loss_BS[counted_BS], self._targets.log_prob_N[places_N], self._targets.advantage_N[places_N], self._clip
        )
        figures = torch.zeros(self.figures, dtype=torch.float64, device=loss_BS.device)
        for index, values in enumerate((terms.loss.detach(), terms.clipped, terms.kl)):
            figures[index] = values.double().sum()
        return terms.loss.sum(), counted_BS.sum().int(), {"figures": figures}

    def _loss_of_text(self, loss_of: LossOf, loss_BS: Tensor) -> tuple[Tensor, Tensor, Figures]:
        total, count, of_text = loss_of(loss_BS)
        figures = torch.zeros(self.figures, dtype=torch.float64, device=loss_BS.device)
        figures[self.OWN :] = of_text["figures"]
        return total * self._text_scale, torch.zeros_like(count), {"figures": figures}


class ValueLoss:
    """The critic's loss, averaged over the tokens of the answers."""

    figures = 1  # the sum over the tokens

    def __init__(self, targets: ValueTargets, clip: float | None) -> None:
        self._targets, self._clip = targets, clip

    def forward(self, chunk: Any, batch: Rows) -> tuple[Tensor, LossOf]:
        return chunk(batch.tokens_BS, None, batch.edges_BE), partial(self._loss, batch)

    def _loss(self, rows: Rows, score_BS: Tensor) -> tuple[Tensor, Tensor, Figures]:
        counted_BS = rows.counted_BS
        places_N = rows.place_BS[counted_BS]
        targets = self._targets
        loss = maths.value_loss(
            score_BS[counted_BS], targets.value_N[places_N], targets.return_N[places_N], self._clip
        ).sum()
        return loss, counted_BS.sum().int(), {"figures": loss.detach().double()[None]}
