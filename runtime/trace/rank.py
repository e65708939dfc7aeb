"""Runs one real optimizer step of a rank and counts what it allocates.

All that runs is the runtime's own: model, gradient buffers, optimizer and `train_step`, Megatron's schedule, and our
kernels. Only the places in the code are observed, to tell what an allocation is for.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from megatron.core import utils
from megatron.core.distributed import DistributedDataParallel
from megatron.core.models.gpt import GPTModel
from megatron.core.optimizer import ChainedOptimizer
from megatron.core.pipeline_parallel import schedules
from msgspec import structs
from torch import Tensor, nn

from trainwright.runtime import host
from trainwright.runtime.trace.allocations import Allocations
from trainwright.runtime.trace.fake_world import flash_backward_scratch_bytes
from trainwright.runtime.train.language import LanguageLoss, MicroBatch, own_slices
from trainwright.runtime.train.layers import RmsNorm
from trainwright.runtime.train.model import model_of
from trainwright.runtime.train.optimizer import build_optimizer, set_learning_rate, wrap
from trainwright.runtime.train.step import train_step
from trainwright.spec.plan import PhaseStage

# What the storages made by a module are once the backward pass will need them. Other modules: what their parent's are.
_SAVED = {
    "embedding": "layer inputs",
    "decoder": "layer inputs",
    "input_layernorm": "norms",
    "pre_mlp_layernorm": "norms",
    "self_attention": "attention",
    "mlp": "MLP",
}
_SCRATCH = {
    torch.ops.aten._scaled_dot_product_flash_attention_backward.default: (
        lambda gradient, query, key, *_: flash_backward_scratch_bytes(query, key)
    )
}


def trace_step(stage: PhaseStage, *, micro_batches: int, seed: int | None = None) -> Allocations:
    """The allocations of this rank's second step. `parallel.initialize` must have run.

    The first step is the optimizer's alone, which makes its moments. `seed` None leaves the weights undefined.
    """
    allocations = Allocations(_SCRATCH)
    with allocations, host.expected_warnings():
        # The package need not be here, and keeps what torch's own FlashAttention does.
        attention = "sdpa" if stage.attention == "flash-attn" else stage.attention
        chunks = model_of(structs.replace(stage, attention=attention), seed=seed)
        wrapped = wrap(chunks, stage.layout)
        optimizer = build_optimizer(wrapped, stage.optimizer, stage.layout, stage.precision)
        set_learning_rate(optimizer, 1e-3)
        optimizer.step()
        optimizer.zero_grad()
        _assign_states(allocations, chunks, wrapped)
        # The runtime holds the tokens of a whole step, however few of its micro-batches are run here.
        batches = [_micro_batch(allocations, stage) for _ in range(stage.layout.micro_batches)]
        for chunk in chunks:
            _observe_modules(allocations, chunk)
        with _observed_calls(allocations, optimizer):
            allocations.begin()
            train_step(wrapped, optimizer, LanguageLoss(sorted(stage.mixture)), batches[:micro_batches])
    return allocations


def _assign_states(allocations: Allocations, chunks: list[GPTModel], wrapped: list[DistributedDataParallel]) -> None:
    for chunk in chunks:
        for parameter in chunk.parameters():
            allocations.assign("parameters", parameter.data)
    for chunk in wrapped:
        for buffer in chunk.buffers:
            allocations.assign("gradients", buffer.grad_data)
    allocations.assign_rest("optimizer", other_than={"parameters", "gradients"})


def _micro_batch(allocations: Allocations, stage: PhaseStage) -> MicroBatch:
    """Whole sequences, each a single document."""
    batch, length = stage.layout.micro_batch, stage.sequence_length
    tokens_BS1 = torch.zeros(batch, length + 1, dtype=torch.int64)
    tokens_BS, labels_BS, counted_BS = own_slices(tokens_BS1, torch.ones(batch, length))
    for tensor in (tokens_BS, labels_BS, counted_BS):
        allocations.assign("batch", tensor)
    sources_B = torch.zeros(batch, dtype=torch.int64)
    return MicroBatch(tokens_BS, labels_BS, counted_BS, sources_B, edges_BE=None)


def _observe_modules(allocations: Allocations, chunk: GPTModel) -> None:
    """While a module of the chunk runs, new storages are for it."""

    def inside(module: nn.Module, **place: Any) -> None:
        module.register_forward_pre_hook(lambda *_: allocations.enter(**place))
        module.register_forward_hook(left, always_call=True)

    def left(module: nn.Module, _: object, output: Any) -> None:
        allocations.leave()
        if isinstance(module, RmsNorm) and isinstance(output, tuple):  # with the sum that it normalised
            allocations.correct("layer inputs", output[0])

    for name, module in chunk.named_modules():
        last = name.rpartition(".")[2]
        if last in _SAVED:
            inside(module, made="temporaries", saved=_SAVED[last])
        elif last == "final_layernorm":
            inside(module, made="temporaries", saved="head's inputs", takes_inputs=True)
        elif last == "output_layer":
            inside(module, made="logits", saved="logits")


@contextmanager
def _observed_calls(allocations: Allocations, optimizer: ChainedOptimizer) -> Iterator[None]:
    """Inside the block, Megatron's functions tell what happens. Between the passes, stages exchange activations."""

    def one_pass(name: str, call: Callable[..., Any], made: str, saved: str) -> Callable[..., Any]:
        done = 0

        def observed(*args: Any, **kwargs: Any) -> Any:
            nonlocal done
            done += 1
            allocations.enter(made=made, saved=saved, recomputes=name == "backward")
            with allocations.at(f"{name} pass {done}"):
                result = call(*args, **kwargs)
            allocations.leave()
            return result

        return observed

    def kept_buffer(*args: Any, **kwargs: Any) -> Tensor:
        buffer: Tensor = get_tensor(*args, **kwargs)
        allocations.assign("communication", buffer)
        return buffer

    def step() -> Any:
        with allocations.at("the optimizer's step"):
            return optimizer_step()

    forward, backward = schedules.forward_step, schedules.backward_step
    get_tensor, optimizer_step = utils.GlobalMemoryBuffer.get_tensor, optimizer.step
    schedules.forward_step = one_pass("forward", forward, "logits", "logits")
    schedules.backward_step = one_pass("backward", backward, "temporaries", "temporaries")
    utils.GlobalMemoryBuffer.get_tensor = kept_buffer
    optimizer.step = step
    allocations.enter(made="communication", saved="layer inputs")
    try:
        with allocations.at("between passes"):
            yield
    finally:
        allocations.leave()
        schedules.forward_step, schedules.backward_step = forward, backward
        utils.GlobalMemoryBuffer.get_tensor = get_tensor
        del optimizer.step
