"""A model as Hugging Face `LlamaForCausalLM`: what `from_pretrained` and every server of Llama models load.

A reward model becomes a `LlamaForSequenceClassification` of one label. That reads the last token that is not padding:
end a conversation with the reward token, whose id is `reward_token_id` of the configuration.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainwright.runtime.export.names import llama, translate
from trainwright.runtime.export.shards import write_shards
from trainwright.runtime.export.tokenizer import TokenIds, export_tokenizer
from trainwright.spec.plan import ExportStage, ModelPlan

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
DTYPE_NAMES = {"bf16": "bfloat16", "fp32": "float32"}


def write(
    tensors: Mapping[str, Tensor],
    model: ModelPlan,
    stage: ExportStage,
    out: Path,
    *,
    tokenizer_folder: Path,
    shard_bytes: int,
    reward_token: int | None = None,
) -> int:
    """The empty folder `out` holds weights, configuration and tokenizer; returns the bytes of the weights.

    `tensors` carry Megatron-core's names; with a `reward_token` they are those of a reward model.
    """
    ids = export_tokenizer(tokenizer_folder, out, code_newline=stage.code_newline)
    scores = reward_token is not None
    write_json(out / "config.json", config(model, stage, ids, reward_token))
    if not scores:
        write_json(out / "generation_config.json", generation_config(ids))
    dialect = llama(model, scores=scores)
    return write_shards(translate(tensors, dialect), out, dtype=DTYPES[stage.precision], shard_bytes=shard_bytes)


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


def dimensions(model: ModelPlan, stage: ExportStage, ids: TokenIds) -> dict[str, Any]:
    """The keys of config.json that a Llama and an InternLM2 have in common."""
    return {
        "hidden_size": model.hidden_size,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads,
        "intermediate_size": model.ffn_size,
        "vocab_size": model.vocab_size,
        "max_position_embeddings": stage.max_positions,
        "rope_theta": stage.rope_base,
        "rms_norm_eps": model.norm_eps,
        "hidden_act": "silu",
        "initializer_range": model.init_std,
        "tie_word_embeddings": model.tie_embeddings,
        "bos_token_id": ids.begin,
        "eos_token_id": ids.end,
        "pad_token_id": ids.end,
        "torch_dtype": DTYPE_NAMES[stage.precision],
        "use_cache": True,
    }


def of_reward_model(reward_token: int) -> dict[str, Any]:
    """What differs in the keys of `dimensions`, and the key that says where scores are read."""
    return {"tie_word_embeddings": False, "use_cache": False, "reward_token_id": reward_token}


def generation_config(ids: TokenIds) -> dict[str, Any]:
    """Generation stops at the end of a document, and at the end of a turn if there is such a token."""
    stops: int | list[int] = ids.end if ids.turn_end is None else [ids.end, ids.turn_end]
    return {"bos_token_id": ids.begin, "eos_token_id": stops, "pad_token_id": ids.end, "do_sample": True}


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
