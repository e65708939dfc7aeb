"""A model under InternLM2's own tensor names and configuration, as InternLM released its weights.

The released repositories also ship the model's Python code (`auto_map`); this folder carries none, so programs that
know InternLM2 (LMDeploy, vLLM, llama.cpp) read it, and `transformers` needs InternLM's code beside it. A reward model
becomes an `InternLM2ForRewardModel`.
"""

from typing import Any

from trainwright.runtime.export.folder import Format, dimensions, of_reward_model
from trainwright.runtime.export.names import internlm2
from trainwright.runtime.export.tokenizer import TokenIds
from trainwright.spec.plan import ExportStage, ModelPlan


class HeadSizeNotExpressible(ValueError):
    """InternLM2's configuration has no key for the head size: it is always hidden_size / heads."""


def config(model: ModelPlan, stage: ExportStage, ids: TokenIds, reward_token: int | None = None) -> dict[str, Any]:
    """config.json with every key written: the configuration class's defaults are those of InternLM 1."""
    if model.head_size * model.heads != model.hidden_size:
        raise HeadSizeNotExpressible(
            f"InternLM2's format needs head_size = hidden_size / heads = {model.hidden_size / model.heads:g}, "
            f"not {model.head_size}; export as huggingface instead"
        )
    return {
        "architectures": ["InternLM2ForCausalLM" if reward_token is None else "InternLM2ForRewardModel"],
        "model_type": "internlm2",
        **dimensions(model, stage, ids),
        **({} if reward_token is None else of_reward_model(reward_token)),
        "attn_implementation": "eager",
        "bias": model.attention_bias,
        "pretraining_tp": 1,
        # As released: within max_position_embeddings it is plain RoPE, beyond it the base grows.
        "rope_scaling": {"type": "dynamic", "factor": 2.0},
    }


FORMAT = Format(config, internlm2)
