"""A tiny Megatron-core model on this process."""

from collections.abc import Iterator
from typing import Any

import pytest

from trainwright.runtime import host
from trainwright.spec.plan import ModelPlan

# The stand-ins must be there before a test module imports anything of Megatron-core.
host.install()


@pytest.fixture(scope="module")
def model() -> Iterator[Any]:
    from trainwright.runtime.evaluate.process import ONE_PROCESS, one_process
    from trainwright.runtime.train.model import build_model

    plan = ModelPlan(
        layers=2, hidden_size=48, heads=6, kv_heads=2, head_size=8, ffn_size=96, vocab_size=96, norm_eps=1e-5,
        init_std=0.2,  # so that logits differ enough to be compared
        attention_bias=True, tie_embeddings=False, parameters=0,
    )  # fmt: skip
    with one_process():
        (chunk,) = build_model(
            plan, ONE_PROCESS, sequence_length=64, rope_base=10_000.0, precision="fp32", attention="auto", seed=1
        )
        yield chunk
