"""Bytes of weights, gradients and optimizer that Megatron-core allocates on one process, beside the compiler's.

Run as `python -m tests.compiler.megatron_states`; prints a JSON list of [allocated, planned] for each case.
"""

import json
import warnings
from typing import Any

from trainwright.runtime import host

CASES: tuple[tuple[str, bool], ...] = (("fp32", False), ("bf16", False), ("bf16", True))


def states(precision: Any, bias: bool) -> list[list[int]]:
    from tests.compiler.test_cost import layout, model

    from trainwright.compiler.cost.case import Case, ModelShape, even_part
    from trainwright.compiler.cost.memory import estimate_rank_memory
    from trainwright.runtime.train.model import build_model
    from trainwright.runtime.train.optimizer import build_optimizer, wrap
    from trainwright.spec.plan import OptimizerPlan

    sizes = model(layers=2, hidden_size=64, heads=4, kv_heads=2, ffn_size=128, vocab_size=512, attention_bias=bias)
    axes = layout()
    chunks = build_model(sizes, axes, sequence_length=64, rope_base=1e4, precision=precision, attention="sdpa", seed=1)
    wrapped = wrap(chunks, axes)
    adamw = OptimizerPlan(kind="adamw", betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, clip=1.0)
    optimizer = build_optimizer(wrapped, adamw, axes, precision)
    wrapped[0].zero_grad_buffer()
    optimizer.step()
    weights = sum(parameter.nbytes for parameter in chunks[0].parameters())
    gradients = sum(buffer.grad_data.nbytes for buffer in wrapped[0].buffers)
    case = Case(model=ModelShape.of(sizes), sequence_length=64, precision=precision)
    planned = estimate_rank_memory(case, even_part(case, 0))
    return [
        [weights, gradients, _optimizer_bytes(optimizer, masters=precision == "bf16")],
        [planned.parameters_bytes, planned.gradients_bytes, planned.optimizer_bytes],
    ]


def _optimizer_bytes(optimizer: Any, *, masters: bool) -> int:
    """Masters, where the optimizer has its own, and moments; the step counters are no tensors worth counting."""
    total = 0
    inner = optimizer.chained_optimizers[0].optimizer
    for group in inner.param_groups:
        for parameter in group["params"]:
            moments = (value for value in inner.state[parameter].values() if value.numel() > 1)
            total += sum(value.nbytes for value in moments) + (parameter.nbytes if masters else 0)
    return total


if __name__ == "__main__":
    host.install()
    warnings.simplefilter("ignore")  # a child process: what Megatron warns of at import is tested elsewhere
    from trainwright.runtime.train import parallel

    parallel.single()
    print(json.dumps([states(*case) for case in CASES]))
