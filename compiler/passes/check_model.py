"""Dimensions of the model that no layout could make work."""

from collections.abc import Iterator

from trainwright.compiler.draft import Check, Draft
from trainwright.compiler.nearest import either, nearest_numbers
from trainwright.spec.diagnostics import Diagnostic


def check_model(draft: Draft) -> Iterator[Diagnostic]:
    model = draft.spec.model
    if model.head_size is None and model.hidden_size % model.heads:
        near = nearest_numbers(model.hidden_size, lambda size: size % (2 * model.heads) == 0)
        yield Diagnostic(
            "TW201",
            f"`hidden_size` {model.hidden_size:,} is not divisible by {model.heads:,} `heads`",
            draft.value_at("model", "hidden_size"),
            f"take `hidden_size` {either(near)}, or state `head_size`",
            draft.label(f"{model.heads:,} heads", "model", "heads"),
        )
    kv_heads = model.kv_heads or model.heads
    if model.heads % kv_heads:
        near = nearest_numbers(kv_heads, lambda n: model.heads % n == 0)
        yield Diagnostic(
            "TW202",
            f"{model.heads:,} `heads` are not divisible by {kv_heads:,} `kv_heads`",
            draft.value_at("model", "kv_heads"),
            f"each key and value head serves as many query heads: take {either(near)}",
            draft.label(f"{model.heads:,} query heads", "model", "heads"),
        )
    head_size = model.head_size or model.hidden_size // model.heads
    if head_size % 2 and (model.head_size or model.hidden_size % model.heads == 0):
        yield Diagnostic(
            "TW203",
            f"a head of size {head_size:,} is odd, but RoPE turns its values in pairs",
            draft.value_at("model", "head_size" if model.head_size else "hidden_size"),
            "choose `hidden_size`, `heads` or `head_size` so that the head size is even; 64 and 128 are usual",
        )


CHECK_MODEL = Check(check_model, needs=("spec.model",), holds="model is sound")
