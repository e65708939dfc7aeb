"""What a stage trains for: which batches a step takes, what loss they give, and which figures it keeps.

Phases, supervised fine-tuning, reward models and DPO differ in this alone; `trainwright.runtime.train.loop` is theirs
together.

B: sequences of a micro-batch, S: their tokens that this context rank holds.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

Figures = Mapping[str, Tensor]
LossOf = Callable[[Tensor], tuple[Tensor, Tensor, Figures]]


class Shaped(Protocol):
    """All that Megatron-core's schedule asks of a micro-batch. All of a step have one shape."""

    @property
    def tokens_BS(self) -> Tensor: ...


class Loss(Protocol):
    """What one micro-batch gives. `figures` numbers are kept of it, added up over the step and over all ranks."""

    @property
    def figures(self) -> int: ...

    def forward(self, chunk: Any, batch: Any) -> tuple[Tensor, LossOf]:
        """The chunk's output of the batch, and the function that makes a loss of the last chunk's.

        That function gives the summed loss to differentiate, the number (int) of what was summed, by which all
        gradients of the step are divided in the end, and {"figures": float64 of `figures`}. Context ranks hold slices
        of the same sequences: what each returns is its own part.
        """
        ...


class Objective(Loss, Protocol):
    """A loss, the micro-batches of every step, and what the figures of a step mean."""

    def micro_batches(self, step: int) -> Sequence[Shaped]:
        """This rank's micro-batches of the step in order; a pure function of the step and of the rank."""
        ...

    def metrics(self, figures: Sequence[float]) -> dict[str, float]:
        """The step's metrics by name, `train/loss` among them."""
        ...

    def consumed(self, figures: Sequence[float]) -> dict[str, int]:
        """Tokens that the step took of each source; all sources are named."""
        ...
