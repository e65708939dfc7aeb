"""What a run exported, as a stranger finds it: transformers loads it and goes on with a prompt as we do."""

import json
from typing import Any

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("prompt", ["The ", "Emma", "def main", "春天", "import json\n"])
def test_transformers_goes_on_as_we_do(prompt: str, micro: Any) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = micro.folder / "runs" / "micro" / "stages" / "export.second" / "huggingface"
    done = micro.trainwright("sample", "runs/micro", prompt, "--max-tokens", "12", "--temperature", "0", "--json")
    assert done.returncode == 0, done.stderr
    ours = json.loads(done.stdout)["text"]

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    given = tokenizer(prompt, return_tensors="pt")
    made = model.generate(**given, max_new_tokens=12, do_sample=False)
    theirs = tokenizer.decode(made[0, given["input_ids"].shape[1] :], skip_special_tokens=True)
    assert theirs == ours
