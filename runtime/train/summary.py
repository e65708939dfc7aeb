"""What an attempt at a phase came to."""

from dataclasses import asdict, dataclass
from typing import Any


class PhaseError(Exception):
    """The phase cannot start or go on; the text is one sentence for the user."""


@dataclass(frozen=True, kw_only=True)
class PhaseSummary:
    """What one attempt at a phase came to; the same on every rank."""

    step: int  # optimizer steps of the phase that are done
    steps: int
    interrupted: bool
    continued_from: int | None  # the step whose checkpoint it went on from
    loss: float | None  # of the last step; None if there was none to do
    consumed_tokens: int
    parameters: int
    tokens_per_s: float | None  # over the steps of this attempt, all ranks together
    checkpoint: str | None  # relative to the stage's folder

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
