"""Every dimension of the model, and how many parameters that makes."""

import msgspec

from trainwright.compiler.cost.parameters import count_parameters
from trainwright.compiler.draft import Draft, Pass
from trainwright.spec.plan import ModelPlan


def resolve_model(draft: Draft) -> None:
    written = draft.spec.model
    model = ModelPlan(
        layers=written.layers,
        hidden_size=written.hidden_size,
        heads=written.heads,
        kv_heads=written.kv_heads or written.heads,
        head_size=written.head_size or written.hidden_size // written.heads,
        ffn_size=written.ffn_size,
        vocab_size=written.vocab_size,
        norm_eps=written.norm_eps,
        init_std=written.init_std,
        attention_bias=written.attention_bias,
        tie_embeddings=written.tie_embeddings,
        parameters=0,
    )
    draft.model = msgspec.structs.replace(model, parameters=count_parameters(model))


RESOLVE_MODEL = Pass(resolve_model, needs=("spec.model", "model is sound"), gives=("model",))
