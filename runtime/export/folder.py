"""A folder of an exported model: weights, configuration and tokenizer, whatever names a format gives them."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainwright.runtime.export.names import Entry, translate
from trainwright.runtime.export.shards import write_shards
from trainwright.runtime.export.tokenizer import TokenIds, export_tokenizer
from trainwright.spec.plan import ExportStage, ModelPlan

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
DTYPE_NAMES = {"bf16": "bfloat16", "fp32": "float32"}


@dataclass(frozen=True)
class Format:
    """`config` makes config.json, for a reward model with its reward token; `dialect` names the tensors."""

    config: Callable[[ModelPlan, ExportStage, TokenIds, int | None], dict[str, Any]]
    dialect: Callable[..., Sequence[Entry]]  # (model, scores=...)


def write_model(
    form: Format,
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

    `tensors` carry Megatron-core's names; with a `reward_token` they are those of a reward model. Raises
    TokenizerNotConvertible, and what the format's `config` raises.
    """
    ids = export_tokenizer(tokenizer_folder, out, code_newline=stage.code_newline)
    scores = reward_token is not None
    _write_json(out / "config.json", form.config(model, stage, ids, reward_token))
    if not scores:
        _write_json(out / "generation_config.json", generation_config(ids))
    dialect = form.dialect(model, scores=scores)
    return write_shards(translate(tensors, dialect), out, dtype=DTYPES[stage.precision], shard_bytes=shard_bytes)


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


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
