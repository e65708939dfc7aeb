"""Pre-training text in the actor's optimizer steps, against forgetting.

How many sequences a step takes follows the tokens of its answers; which ones is a pure function of the step: each step
has as many sequences to itself as the longest answers would ask for, and takes the first of them.

B: sequences of a micro-batch, S: their length.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from megatron.core import parallel_state

from trainwright.runtime.align.ppo.rows import micro_batch_count
from trainwright.runtime.data.batches import Batch, MixedText
from trainwright.runtime.train.language import MicroBatch, micro_batch
from trainwright.spec.plan import Layout, PpoStage, PretrainPlan


@dataclass(frozen=True)
class TextBatch:
    """This rank's micro-batches, and what all ranks together have."""

    micro_batches: list[MicroBatch]
    labels: int
    tokens: Mapping[str, int]  # by source


class Text:
    """The text of a stage with `pretrain`, in sequences as long as the rows of answers."""

    def __init__(self, stage: PpoStage, plan: PretrainPlan, tokens: Path) -> None:
        """`tokens` is the folder of the tokenize stage. Raises DataError if a source has no tokens to train on."""
        if plan.sequence_length != stage.sequence_length:
            raise ValueError("text and answers go through the model in rows of one length")
        self._plan, self._layout, self._length = plan, stage.layout, plan.sequence_length
        most_tokens = stage.sequences_per_step / stage.mini_batches * stage.sequence_length
        self._most = math.ceil(plan.share * most_tokens / self._length) + 1
        key = f"{stage.seed}/ppo/{stage.round}"
        self._text = MixedText(plan.mixture, tokens, length=self._length, key=key, reader=f"stage `{stage.name}`")

    @property
    def names(self) -> tuple[str, ...]:
        """The sources that the micro-batches' indices mean."""
        return self._text.names

    def take(self, step: int, answer_tokens: int) -> TextBatch:
        """The text of an optimizer step, counted from 0, whose rows of queries and answers have so many tokens."""
        count = max(1, round(self._plan.share * answer_tokens / self._length))
        whole = self._text.take(step * self._most, step * self._most + count)
        inner = sum(int((starts > 0).sum()) for starts in whole.starts)
        by_source = np.bincount(whole.sources_B, minlength=len(self.names)) * self._length
        return TextBatch(
            micro_batches=self._own(whole, count),
            labels=count * self._length - inner,
            tokens=dict(zip(self.names, by_source.tolist(), strict=True)),
        )

    def _own(self, whole: Batch, count: int) -> list[MicroBatch]:
        layout = self._layout
        per_rank = micro_batch_count(count, layout) * layout.micro_batch
        first = parallel_state.get_data_parallel_rank() * per_rank
        return [_filled(whole, range(at, at + layout.micro_batch)) for at in _starts(first, per_rank, layout)]


def _starts(first: int, count: int, layout: Layout) -> range:
    return range(first, first + count, layout.micro_batch)


def _filled(whole: Batch, places: range) -> MicroBatch:
    """The sequences at these places; beyond the last one, sequences that do not count."""
    count = len(whole.sources_B)
    rows = [min(place, count - 1) for place in places]
    batch = micro_batch(Batch(whole.tokens_BS1[rows], whole.sources_B[rows], [whole.starts[row] for row in rows]))
    real_B1 = torch.tensor([[float(place < count)] for place in places], device=batch.counted_BS.device)
    return replace(batch, counted_BS=batch.counted_BS * real_B1)
