"""A reward model in other programs' formats."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from trainwright.runtime.evaluate.process import ONE_PROCESS
from trainwright.runtime.export import huggingface, internlm2
from trainwright.runtime.export.folder import write_model
from trainwright.runtime.export.names import internlm2 as internlm2_names
from trainwright.runtime.export.names import restore
from trainwright.runtime.export.shards import read_shards
from trainwright.spec.plan import ExportStage, ModelPlan

MODEL = ModelPlan(
    layers=2, hidden_size=48, heads=6, kv_heads=2, head_size=8, ffn_size=96, vocab_size=2048, norm_eps=1e-5,
    init_std=0.1, attention_bias=False, tie_embeddings=True, parameters=0,
)  # fmt: skip
REWARD = 9


@pytest.fixture
def model(world: None) -> Any:
    from trainwright.runtime.train.model import build_model

    (chunk,) = build_model(
        MODEL, ONE_PROCESS, sequence_length=64, rope_base=1e6, precision="fp32", attention="auto", seed=7, head="score"
    )
    return chunk.eval()


def test_transformers_gives_the_same_scores_to_padded_conversations(
    tmp_path: Path, model: Any, stage: ExportStage, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from transformers import AutoModelForSequenceClassification

    write_model(
        huggingface.FORMAT, dict(model.named_parameters()), MODEL, stage, tmp_path, tokenizer_folder=tokenizer_folder,
        shard_bytes=200_000, reward_token=REWARD,
    )  # fmt: skip
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path, local_files_only=True)
    assert type(theirs).__name__ == "LlamaForSequenceClassification"
    assert theirs.config.reward_token_id == REWARD
    rows = [[1, 30, 40, 50, 60, REWARD], [1, 77, REWARD]]
    padded = torch.tensor([row + [theirs.config.pad_token_id] * (6 - len(row)) for row in rows])
    with torch.no_grad():
        ours = torch.stack([model(torch.tensor([row]), None, None)[0, -1] for row in rows])
        torch.testing.assert_close(theirs(padded).logits.flatten(), ours, rtol=0, atol=1e-5)


def test_internlm2_has_its_own_head(tmp_path: Path, model: Any, stage: ExportStage, tokenizer_folder: Path) -> None:
    tensors = dict(model.named_parameters())
    write_model(
        internlm2.FORMAT,
        tensors,
        MODEL,
        stage,
        tmp_path,
        tokenizer_folder=tokenizer_folder,
        shard_bytes=200_000,
        reward_token=REWARD,
    )
    files = read_shards(tmp_path)
    assert files["v_head.weight"].shape == (1, MODEL.hidden_size)
    assert "output.weight" not in files
    back = dict(restore(files, internlm2_names(MODEL, scores=True)))
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["architectures"], config["reward_token_id"]) == (["InternLM2ForRewardModel"], REWARD)
