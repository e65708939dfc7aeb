"""Tiny random Megatron-core models, and a tokenizer to export with them."""

import gzip
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sentencepiece

from trainwright.runtime import host
from trainwright.runtime.data.vocabulary import MODEL_FILE, SPECIAL_TOKENS_FILE
from trainwright.spec.plan import ExportStage, ModelPlan

# The stand-ins must be there before a test module imports anything of Megatron-core.
host.install()

CORPUS = Path(__file__).parents[3] / "examples" / "corpus"


@pytest.fixture(scope="module")
def world() -> Iterator[None]:
    from trainwright.runtime.evaluate.process import one_process

    with one_process():
        yield


@pytest.fixture
def build(world: None) -> Callable[[ModelPlan], Any]:
    """A function that gives a random model in evaluation mode; biases are random too."""
    import torch

    from trainwright.runtime.evaluate.process import ONE_PROCESS
    from trainwright.runtime.train.model import build_model

    def build(model: ModelPlan) -> Any:
        options: dict[str, Any] = {"sequence_length": 64, "rope_base": 1e6, "precision": "fp32", "attention": "auto"}
        (chunk,) = build_model(model, ONE_PROCESS, **options, seed=7)
        with torch.no_grad():
            for name, parameter in chunk.named_parameters():
                if parameter.ndim == 1:
                    parameter.add_(
                        torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))) / 10
                    )
        return chunk.eval()

    return build


@pytest.fixture
def stage() -> ExportStage:
    return ExportStage(
        name="export",
        needs=(),
        of="short",
        formats=("huggingface", "internlm2"),
        precision="fp32",
        max_positions=128,
        rope_base=1e6,
    )


def documents() -> list[str]:
    """English, Chinese and code."""
    texts = []
    for name, count in (("novels-en", 12), ("poems-zh", 300)):
        with gzip.open(CORPUS / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
            texts += [json.loads(line)["text"] for _, line in zip(range(count), file, strict=False)]
    return [*texts, Path(json.__file__).read_text(encoding="utf-8"), Path(gzip.__file__).read_text(encoding="utf-8")]


def train_tokenizer(**changes: Any) -> bytes:
    """A SentencePiece model of 2,000 pieces as the tokenizer stage would train it, but for `changes`."""
    model = io.BytesIO()
    options: dict[str, Any] = {
        "vocab_size": 2000,
        "character_coverage": 0.98,
        "model_type": "bpe",
        "byte_fallback": True,
        "split_digits": True,
        "normalization_rule_name": "identity",
        "add_dummy_prefix": False,
        "remove_extra_whitespaces": False,
        "allow_whitespace_only_pieces": True,
        "user_defined_symbols": ["▁▁▁▁", "two words", "[UNUSED_TOKEN_0]"],
        "control_symbols": ["<|im_start|>", "<|im_end|>"],
        "num_threads": 1,
        "max_sentence_length": 1 << 20,
        "minloglevel": 2,
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(documents()), model_writer=model, **(options | changes)
    )
    return model.getvalue()


@pytest.fixture(scope="session")
def train() -> Callable[..., bytes]:
    return train_tokenizer


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return documents()


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the tokenizer stage leaves."""
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / MODEL_FILE).write_bytes(train_tokenizer())
    (folder / SPECIAL_TOKENS_FILE).write_text("{}")
    return folder
