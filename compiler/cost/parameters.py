"""How many parameters a model has, and how many of them one rank holds. Exact.

Letters as in the field: L layers, h hidden size, a query heads, k key-value heads, d head size, f MLP width,
V vocabulary, t tensor-parallel ranks.
"""

from trainwright.spec.plan import ModelChunk, ModelPlan


def layer_parameters(model: ModelPlan, tensor: int = 1) -> int:
    """Parameters of one layer on one of `tensor` ranks.

    Split over t: queries, keys and values h*d*(a + 2k), output a*d*h, gate, up and down 3*h*f, and the bias of
    queries, keys and values d*(a + 2k). Whole on every rank: two norms 2h, and the bias h of the output, which is
    added after the ranks' sums met.
    """
    qkv_width = model.head_size * (model.heads + 2 * model.kv_heads)
    split = model.hidden_size * (qkv_width + model.heads * model.head_size + 3 * model.ffn_size)
    whole = 2 * model.hidden_size
    if model.attention_bias:
        split += qkv_width
        whole += model.hidden_size
    return split // tensor + whole


def embedding_parameters(model: ModelPlan, tensor: int = 1) -> int:
    """Parameters of the token embedding V*h on one of `tensor` ranks; an untied head has as many."""
    return model.vocab_size * model.hidden_size // tensor


def count_parameters(model: ModelPlan) -> int:
    """Parameters of the whole model: embedding, layers, last norm, head."""
    tables = 1 if model.tie_embeddings else 2
    return tables * embedding_parameters(model) + model.layers * layer_parameters(model) + model.hidden_size


def rank_parameters(model: ModelPlan, chunks: tuple[ModelChunk, ...], pipeline_rank: int, tensor: int) -> int:
    """Parameters that each rank on `pipeline_rank` holds.

    A tied table stands on the first and on the last pipeline rank, and once if they are the same.
    """
    own = [chunk for chunk in chunks if chunk.pipeline_rank == pipeline_rank]
    layers = sum(chunk.last_layer - chunk.first_layer for chunk in own)
    embedding = any(chunk.embedding for chunk in own)
    head = any(chunk.head for chunk in own)
    tables = int(embedding) + int(head and not (embedding and model.tie_embeddings))
    last_norm = model.hidden_size if head else 0
    return layers * layer_parameters(model, tensor) + tables * embedding_parameters(model, tensor) + last_norm
