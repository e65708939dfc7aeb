"""Model FLOPs of training, in one stated convention. Exact by that convention.

Derivation: a product of a token's vector with an m x n matrix is 2mn FLOPs forward and twice that backward, so
each weight that multiplies a token costs 6. Those are the layers' matrices 2*h*d*(a + k) + 3*h*f and the head V*h;
the embedding is a lookup. A token's query meets s keys: 2*a*d*s for the scores and 2*a*d*s for the weighted sum,
so 12*a*d*s a layer forward and backward, of which a causal mask keeps half:

    F = 6 * (L * (2*h*d*(a + k) + 3*h*f) + V*h)  +  12 * L * a*d * s / 2        per token

Source of the form: Narayanan et al. 2021 (arXiv 2104.04473), with the shapes of grouped queries. Known error: norms,
activations, RoPE and the softmax are left out (well under 1 %), and packed documents attend over less than s.
"""

from trainwright.spec.plan import ModelPlan

FLOPS_CONVENTION = "model FLOPs: causal attention counted once (half the square), recomputation not counted"


def model_flops_per_token(model: ModelPlan, sequence_length: int) -> float:
    """FLOPs of a training step per token, forward and backward, in sequences of `sequence_length` tokens."""
    attention_width = model.heads * model.head_size
    projections = 2 * model.hidden_size * model.head_size * (model.heads + model.kv_heads)
    layer = projections + 3 * model.hidden_size * model.ffn_size
    weights = model.layers * layer + model.vocab_size * model.hidden_size
    scores = 12 * model.layers * attention_width * sequence_length / 2
    return 6.0 * weights + scores


def recomputed_flops_per_token(
    model: ModelPlan, sequence_length: int, recompute: str, *, fused_loss: bool = False
) -> float:
    """FLOPs per token that recomputation adds to the model's own: hardware FLOPs, never part of an MFU.

    `full` runs the layers forward again, `selective` the attention scores alone, the fused loss the head.
    """
    head = 2.0 * model.vocab_size * model.hidden_size
    again = head if fused_loss else 0.0
    if recompute == "selective":
        again += 4 * model.layers * model.heads * model.head_size * sequence_length / 2
    elif recompute == "full":
        again += model_flops_per_token(model, sequence_length) / 3 - head
    return again
