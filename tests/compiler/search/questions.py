"""Questions for the tests of the search: a model of 1.8B on one node, all free."""

from typing import Any

from trainwright.compiler.search.question import Question
from trainwright.spec.auto import AUTO_KEYS
from trainwright.spec.device import HardwareFile, load_hardware
from trainwright.spec.plan import ModelPlan
from trainwright.spec.topology import Topology

MODEL = ModelPlan(
    layers=24, hidden_size=2048, heads=16, kv_heads=8, head_size=128, ffn_size=8192, vocab_size=92_544,
    norm_eps=1e-5, init_std=0.02, attention_bias=False, tie_embeddings=False, parameters=1_889_110_016,
)  # fmt: skip


def question(
    *, nodes: int = 1, length: int = 4096, everything: bool = False, sequences: int = 64, **pinned: Any
) -> Question:
    values = dict.fromkeys(AUTO_KEYS, "auto") | pinned
    return Question(
        phase="pretrain",
        model=MODEL,
        precision="bf16",
        sequence_length=length,
        sequences=sequences,
        steps=1000,
        topology=Topology(**values),
        nodes=nodes,
        gpus_per_node=8,
        storage_bytes_per_s=1e9,
        everything=everything,
    )


def a100() -> HardwareFile:
    device = load_hardware("a100-80gb")
    assert device is not None
    return device
