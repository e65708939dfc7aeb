"""What other programs load says what the model says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trainwright.runtime.export import huggingface, internlm2
from trainwright.runtime.export.folder import write_model
from trainwright.runtime.export.names import internlm2 as internlm2_names
from trainwright.runtime.export.names import restore
from trainwright.runtime.export.shards import read_shards
from trainwright.spec.plan import ExportStage, ModelPlan

PROMPTS = [
    "It was a truth",
    "春眠不覺曉",
    "def f(x):\n    return 12345\n",
    "  two  spaces\t\n\n",
    "Elizabeth felt herself growing more angry every moment; yet she tried to the utmost to speak with composure",
]


def plan_of(**changes: Any) -> ModelPlan:
    shape: dict[str, Any] = {
        "layers": 2,
        "hidden_size": 48,
        "heads": 6,
        "kv_heads": 2,
        "head_size": 8,
        "ffn_size": 96,
        "vocab_size": 2048,  # more rows than the tokenizer has pieces
        "norm_eps": 1e-5,
        "init_std": 0.1,
        "attention_bias": False,
        "tie_embeddings": False,
        "parameters": 0,
    }
    return ModelPlan(**(shape | changes))


def our_logits(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(torch.tensor([ids]), torch.arange(len(ids))[None], None)
    return logits


@pytest.mark.parametrize(
    "changes",
    [{}, {"kv_heads": 6}, {"kv_heads": 1}, {"attention_bias": True}, {"tie_embeddings": True}, {"head_size": 16}],
    ids=["grouped", "multi-head", "multi-query", "bias", "tied", "head size of its own"],
)
def test_transformers_gives_the_same_logits(
    tmp_path: Path,
    build: Callable[[ModelPlan], Any],
    stage: ExportStage,
    tokenizer_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = plan_of(**changes)
    ours = build(model)
    tensors = dict(ours.named_parameters())
    write_model(
        huggingface.FORMAT, tensors, model, stage, tmp_path, tokenizer_folder=tokenizer_folder, shard_bytes=200_000
    )
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    assert type(theirs).__name__ == "LlamaForCausalLM"
    assert theirs.config.rope_parameters["rope_theta"] == stage.rope_base
    for prompt in PROMPTS:
        ids = tokenizer(prompt)["input_ids"]
        with torch.no_grad():
            logits = theirs(torch.tensor([ids])).logits
        torch.testing.assert_close(logits, our_logits(ours, ids), rtol=0, atol=1e-4)


@pytest.mark.parametrize("changes", [{}, {"kv_heads": 1, "attention_bias": True}, {"tie_embeddings": True}])
def test_an_internlm2_file_maps_back_to_the_same_tensors(
    tmp_path: Path,
    build: Callable[[ModelPlan], Any],
    stage: ExportStage,
    tokenizer_folder: Path,
    changes: dict[str, Any],
) -> None:
    model = plan_of(**changes)
    tensors = dict(build(model).named_parameters())
    write_model(
        internlm2.FORMAT, tensors, model, stage, tmp_path, tokenizer_folder=tokenizer_folder, shard_bytes=200_000
    )
    back = dict(restore(read_shards(tmp_path), internlm2_names(model)))
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == "internlm2"
    assert config["bias"] is model.attention_bias


def test_internlm2_cannot_say_a_head_size_of_its_own(
    tmp_path: Path, stage: ExportStage, tokenizer_folder: Path
) -> None:
    with pytest.raises(internlm2.HeadSizeNotExpressible, match="head_size = hidden_size / heads = 8, not 16"):
        write_model(
            internlm2.FORMAT,
            {},
            plan_of(head_size=16),
            stage,
            tmp_path,
            tokenizer_folder=tokenizer_folder,
            shard_bytes=1,
        )
