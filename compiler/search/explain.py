"""Why a layout loses against the chosen one, in a few words."""

from trainwright.compiler.capacity import TIGHT
from trainwright.compiler.figures import size
from trainwright.compiler.search.result import Candidate

_LEAST = 0.01  # of the chosen step: what differs by less is not worth a word
_TERMS = {
    "parameters": "weights",
    "gradients": "gradients",
    "optimizer": "optimizer state",
    "activations": "activations",
    "logits": "logits",
}


def why_slower(candidate: Candidate, chosen: Candidate) -> str:
    """The two parts of the step that are longer by most, as shares of the chosen step; what it gains, in brackets."""
    whole = chosen.step.time_s
    if candidate.step.time_s < whole:  # chosen for all phases together
        return "not so much faster that changing the layout between phases would pay"
    names = dict.fromkeys([*candidate.step.parts, *chosen.step.parts])
    change = {name: (candidate.step.parts.get(name, 0.0) - chosen.step.parts.get(name, 0.0)) / whole for name in names}
    longer = sorted((name for name in names if change[name] >= _LEAST), key=lambda name: -change[name])[:2]
    shorter = min(names, key=lambda name: change[name])
    if not longer:
        return f"{candidate.step.time_s / whole - 1:+.1%} in all, little by little"
    said = ", ".join(f"{change[name]:+.0%} {name}" for name in longer)
    return f"{said} ({change[shorter]:+.0%} {shorter})" if change[shorter] <= -_LEAST else said


def why_too_large(candidate: Candidate, limit_bytes: float | None) -> str:
    """By how much it is over what may be counted on, on which rank, and the term that is largest there."""
    over = candidate.memory.total_bytes - (limit_bytes or 0)
    where = f" on pipeline rank {candidate.memory.pipeline_rank}" if candidate.layout.pipeline > 1 else ""
    most = _TERMS.get(candidate.memory.binds, candidate.memory.binds)
    return f"{size(over)} over {TIGHT:.0%} of the card{where}, most of it {most}"
