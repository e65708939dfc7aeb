"""What an attempt at a training stage came to."""

from dataclasses import asdict, dataclass, field
from typing import Any


class PhaseError(Exception):
    """The stage cannot start or go on; the text is one sentence for the user."""


@dataclass(frozen=True, kw_only=True)
class PhaseSummary:
    """What one attempt at a stage came to; the same on every rank."""

    step: int  # optimizer steps of the stage that are done
    steps: int
    interrupted: bool
    continued_from: int | None  # the step whose checkpoint it went on from
    loss: float | None  # of the last step; None if there was none to do
    consumed_tokens: int
    parameters: int
    tokens_per_s: float | None  # over the steps of this attempt, all ranks together
    checkpoint: str | None  # relative to the stage's folder
    results: dict[str, Any] = field(default_factory=dict)  # of a stage that does more than train, once it is done

    def to_dict(self) -> dict[str, Any]:
        """As `summary.json` has it: results stand beside the rest."""
        own = asdict(self)
        results: dict[str, Any] = own.pop("results")
        return own | results
