"""Megatron-core's gradient buffers and optimizer, set up from the plan."""

from typing import Literal

import torch
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig, finalize_model_grads
from megatron.core.models.gpt import GPTModel
from megatron.core.optimizer import ChainedOptimizer, OptimizerConfig, get_megatron_optimizer

from trainwright.runtime.train.parallel import optimizer_copies, optimizer_shards
from trainwright.spec.plan import Layout, OptimizerPlan


def wrap(chunks: list[GPTModel], layout: Layout) -> list[DistributedDataParallel]:
    """The chunks with fp32 gradient buffers that are summed over the data axis."""
    wrapped = []
    for index, chunk in enumerate(chunks):
        config = DistributedDataParallelConfig(
            grad_reduce_in_fp32=True,
            use_distributed_optimizer=optimizer_shards(layout) > 1,
            num_distributed_optimizer_instances=optimizer_copies(layout),
        )
        wrapped.append(DistributedDataParallel(chunk.config, config, chunk, disable_bucketing=index > 0))
        chunk.config.finalize_model_grads_func = finalize_model_grads
    return wrapped


def build_optimizer(
    chunks: list[DistributedDataParallel],
    plan: OptimizerPlan,
    layout: Layout,
    precision: Literal["bf16", "fp32"],
) -> ChainedOptimizer:
    """AdamW over the chunks' parameters, with fp32 masters in bf16, sharded inside groups of ranks with zero = 1.

    Weight decay applies to every parameter, norms included, as in InternEvo.
    """
    config = OptimizerConfig(
        optimizer="adam",
        lr=0.0,  # set before every step
        weight_decay=plan.weight_decay,
        adam_beta1=plan.betas[0],
        adam_beta2=plan.betas[1],
        adam_eps=plan.eps,
        clip_grad=plan.clip,
        bf16=precision == "bf16",
        params_dtype=torch.bfloat16 if precision == "bf16" else torch.float32,
        use_distributed_optimizer=optimizer_shards(layout) > 1,
    )
    optimizer = get_megatron_optimizer(config, chunks, config_overrides={}, use_gloo_process_groups=False)
    for group in optimizer.param_groups:
        group["fused"] = True  # one pass over parameter, gradient and moments; on a CPU three times as fast
    return optimizer


def set_learning_rate(optimizer: ChainedOptimizer, rate: float) -> None:
    """The next step uses `rate`."""
    for group in optimizer.param_groups:
        group["lr"] = rate
