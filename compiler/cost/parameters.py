"""How many parameters a model has, and how many of them one rank holds. Exact.

Letters as in the field: L layers, h hidden size, a query heads, k key-value heads, d head size, f MLP width,
V vocabulary, t tensor-parallel ranks.
"""

from trainwright.compiler.cost.case import Case, ModelShape, Part
from trainwright.compiler.cost.numeric import Number
from trainwright.spec.plan import ModelPlan


def layer_matrices(model: ModelShape) -> dict[str, int]:
    """Parameters of a layer's matrices, over all tensor ranks."""
    width = model.heads * model.head_size
    return {
        "qkv": model.hidden_size * (width + 2 * model.kv_heads * model.head_size),
        "attention output": width * model.hidden_size,
        "gate and up": model.hidden_size * model.ffn_size * (2 if model.gated else 1),
        "down": model.ffn_size * model.hidden_size,
    }


def layer_parameters(model: ModelShape, tensor: Number = 1) -> Number:
    """Parameters of one layer on one of `tensor` ranks.

    Split over t: queries, keys and values h*d*(a + 2k), output a*d*h, gate, up and down 3*h*f (2*h*f of a plain MLP),
    and biases of split outputs. Whole on every rank: two norms 2h, and biases that are added after the ranks' sums
    met. A plain MLP with biases is GPT's: its norms have biases too.
    """
    split = sum(layer_matrices(model).values())
    whole = 2 * model.hidden_size
    if model.bias:
        split += model.head_size * (model.heads + 2 * model.kv_heads)
        whole += model.hidden_size
    if model.bias and not model.gated:
        split += model.ffn_size
        whole += 3 * model.hidden_size
    return split // tensor + whole


def embedding_parameters(model: ModelShape, tensor: Number = 1) -> Number:
    """Parameters of the token embedding V*h on one of `tensor` ranks; an untied head has as many."""
    return model.vocab_size * model.hidden_size // tensor


def last_norm_parameters(model: ModelShape) -> int:
    return model.hidden_size * (2 if model.bias and not model.gated else 1)


def part_parameters(case: Case, part: Part) -> Number:
    """Parameters that each rank of a pipeline rank holds, before data-parallel ranks share them.

    A tied table stands on the first and on the last pipeline rank, and once if they are the same.
    """
    model = case.model
    tables = part.embedding + part.head * (1 - part.embedding if model.tied else 1)
    return (
        part.layers * layer_parameters(model, case.tensor)
        + tables * embedding_parameters(model, case.tensor)
        + part.embedding * model.learned_positions * model.hidden_size
        + part.head * last_norm_parameters(model)
    )


def count_parameters(plan: ModelPlan) -> int:
    """Parameters of the whole model: embedding, layers, last norm, head."""
    whole = Part(pipeline_rank=0, layers=plan.layers, embedding=1, head=1)
    return int(part_parameters(Case(model=ModelShape.of(plan), sequence_length=1), whole))
