"""What Megatron-core's own schedules do on each pipeline rank, with nothing computed and nothing sent.

Run as `python -m tests.compiler.megatron_schedule`; prints JSON: for each case, for each rank, in order, its passes
`[kind, chunk, micro-batch]` and its exchanges `["X", [results sent], receives forward, receives backward]`.
"""

import json
import warnings
from types import SimpleNamespace
from typing import Any

from trainwright.runtime import host

# (pipeline, chunks, micro-batches); with fewer micro-batches than warm-up passes, too
CASES = ((1, 1, 3), (2, 1, 4), (4, 1, 8), (4, 1, 2), (2, 2, 4), (4, 2, 8), (4, 3, 4), (3, 2, 9), (4, 2, 4))


def events(pipeline: int, chunks: int, micro_batches: int, rank: int) -> list[Any]:
    from megatron.core.enums import ModelType
    from megatron.core.pipeline_parallel import schedules, utils
    from megatron.core.pipeline_parallel.p2p_communication import P2PCommunicator
    from megatron.core.transformer.transformer_config import TransformerConfig
    from torch import nn, tensor

    recorded: list[Any] = []

    class Recorder(P2PCommunicator):  # type: ignore[misc]  # Megatron has no types
        def __init__(self, group: Any, config: Any) -> None:
            self.pp_group, self.config = group, config
            self.virtual_pipeline_model_parallel_size = config.virtual_pipeline_model_parallel_size

        def _communicate(self, *, tensor_send_next: Any, tensor_send_prev: Any, recv_prev: bool, recv_next: bool,
                         **_: Any) -> Any:  # fmt: skip
            sent = [result for result in (tensor_send_next, tensor_send_prev) if result is not None]
            if sent or recv_prev or recv_next:
                recorded.append(["X", sent, recv_prev, recv_next])
            return "came" if recv_prev else None, "came" if recv_next else None, None

    def forward(*_: Any, current_microbatch: int, vp_stage: int | None = None, **__: Any) -> Any:
        recorded.append(["F", vp_stage or 0, current_microbatch])
        result = recorded[-1]
        return (result if chunks > 1 else [result]), tensor(0)

    def backward(_: Any, output: Any, *__: Any) -> Any:
        forward_pass = output if chunks > 1 else output[0]
        recorded.append(["B", *forward_pass[1:]])
        return recorded[-1] if chunks > 1 else [recorded[-1]]

    class Chunk(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config, self.model_type = config, ModelType.encoder_or_decoder

    config = TransformerConfig(
        num_layers=pipeline * chunks,
        hidden_size=8,
        num_attention_heads=1,
        pipeline_model_parallel_size=pipeline,
        virtual_pipeline_model_parallel_size=chunks if chunks > 1 else None,
        pipeline_dtype=tensor(0).dtype,
    )
    group = SimpleNamespace(size=lambda: pipeline, rank=lambda: rank)
    alone = SimpleNamespace(size=lambda: 1, rank=lambda: 0)
    groups = SimpleNamespace(tp=alone, cp=alone, embd=None, pos_embd=None, pp=group, dp_cp=alone)
    utils.get_pg_size, utils.get_pg_rank = lambda each: each.size(), lambda each: each.rank()
    schedules.forward_step, schedules.backward_step = forward, backward
    run = (
        schedules.forward_backward_pipelining_with_interleaving
        if chunks > 1
        else schedules.forward_backward_pipelining_without_interleaving
    )
    run(
        forward_step_func=None,
        data_iterator=[None] * chunks,
        model=[Chunk() for _ in range(chunks)],
        num_microbatches=micro_batches,
        seq_length=8,
        micro_batch_size=1,
        p2p_communicator=Recorder(group, config),
        pg_collection=groups,
    )
    return recorded


if __name__ == "__main__":
    host.install()
    warnings.simplefilter("ignore")  # a child process: what Megatron warns of at import is tested elsewhere
    print(json.dumps([[events(*case, rank) for rank in range(case[0])] for case in CASES]))
