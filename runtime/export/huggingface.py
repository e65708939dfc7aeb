"""A model as Hugging Face `LlamaForCausalLM`: what `from_pretrained` and every server of Llama models load.

A reward model becomes a `LlamaForSequenceClassification` of one label. That reads the last token that is not padding:
end a conversation with the reward token, whose id is `reward_token_id` of the configuration.
"""

from typing import Any

from trainwright.runtime.export.folder import Format, dimensions, of_reward_model
from trainwright.runtime.export.names import llama
from trainwright.runtime.export.tokenizer import TokenIds
from trainwright.spec.plan import ExportStage, ModelPlan


def config(model: ModelPlan, stage: ExportStage, ids: TokenIds, reward_token: int | None = None) -> dict[str, Any]:
    """config.json. `rope_theta` and `torch_dtype` are the spellings that transformers 4 and 5 both read."""
    one_label = {"id2label": {"0": "score"}, "label2id": {"score": 0}}
    return {
        "architectures": ["LlamaForCausalLM" if reward_token is None else "LlamaForSequenceClassification"],
        "model_type": "llama",
        **dimensions(model, stage, ids),
        **({} if reward_token is None else {**one_label, **of_reward_model(reward_token)}),
        "attention_bias": model.attention_bias,
        "attention_dropout": 0.0,
        "head_dim": model.head_size,
        "mlp_bias": False,
        "rope_scaling": None,
    }


FORMAT = Format(config, llama)
