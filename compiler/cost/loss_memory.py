"""Memory of the head and its loss: logits, the pieces they are worked on in, and their gradients. Sizes in bytes."""

from trainwright.compiler.cost.activations import gathers, losses_waiting
from trainwright.compiler.cost.case import Case, Part
from trainwright.compiler.cost.framework import MemoryProfile
from trainwright.compiler.cost.numeric import Number, maximum, minimum, where
from trainwright.compiler.cost.parameters import embedding_parameters


def logits_at_the_loss(case: Case, part: Part, profile: MemoryProfile) -> Number:
    """At the moment of the loss. The logits of an fp32 run are their own first wide copy."""
    element = case.element_bytes
    wide = 0 if case.loss_in_place else profile.wide_logits
    per_logit = profile.logits * element + 4 * (wide - (wide > 0) * (element == 4))
    waiting = (4 * minimum(1, wide) or element) * (losses_waiting(case) - 1)
    logits = case.local_tokens * case.model.vocab_size / case.tensor * part.head
    held = (per_logit + waiting) * logits + minimum(profile.loss_piece_bytes, 4 * logits / profile.loss_pieces)
    piece, run = _piece(case, profile)
    return where(case.fused_loss, (piece + run + _gathered(case)) * part.head, held)


def _piece(case: Case, profile: MemoryProfile) -> tuple[Number, Number]:
    """Logits that the fused loss holds, and of a run of them a copy in fp32."""
    piece = loss_piece_tokens(case, profile) * case.model.vocab_size / case.tensor
    return case.element_bytes * piece, minimum(profile.loss_piece_bytes, 4 * piece)


def loss_piece_tokens(case: Case, profile: MemoryProfile) -> Number:
    """As in kernels/linear_cross_entropy.py."""
    rows = profile.fused_piece_bytes * case.tensor // (4 * case.model.vocab_size)
    return minimum(case.local_tokens, maximum(case.model.hidden_size, rows))


def _gathered(case: Case) -> Number:
    """The head's whole input, which the fused loss keeps beside the rank's share of it."""
    return case.element_bytes * gathers(case) * case.local_tokens * case.model.hidden_size


def head_backward(case: Case, part: Part, profile: MemoryProfile) -> tuple[Number, Number]:
    """The logits' gradient; beside it the gradients of the head's weight and of its input.

    The fused loss has no such logits. It adds the weight's gradient up in fp32, of 16-bit products.
    """
    element = case.element_bytes
    logits = element * case.local_tokens * case.model.vocab_size / case.tensor * part.head
    weight = profile.table_gradient * embedding_parameters(case.model, case.tensor)
    inputs = element * case.local_tokens * case.model.hidden_size
    piece, run = _piece(case, profile)
    table = embedding_parameters(case.model, case.tensor)
    pieces = piece + 4 * table + maximum(run, (element < 4) * element * table) + _gathered(case)
    return where(case.fused_loss, 0, logits), (where(case.fused_loss, pieces, element * weight) + inputs) * part.head
