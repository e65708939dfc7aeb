"""The optimizer's moments and masters as sharded tensors that do not depend on the layout.

Megatron-core has three optimizers (fp32, bf16, sharded over the data axis) whose state dictionaries differ in shape but
not in content. Here each gives, and takes, only its tensors; hyper-parameters come from the plan, the step from us.
So a checkpoint of any layout, sharded or not, can be continued under any other.
"""

from dataclasses import replace
from typing import Any

import torch
from megatron.core.optimizer import ChainedOptimizer
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer
from megatron.core.optimizer.optimizer import Float16OptimizerWithFloat16Params

MOMENTS = ("exp_avg", "exp_avg_sq")


def sharded_tensors(
    optimizer: ChainedOptimizer, model_state: dict[str, Any], metadata: dict[str, Any], *, loading: bool
) -> dict[str, Any]:
    """{"moments": by parameter {name: sharded tensor}, "masters": by parameter}; masters only in bf16.

    `model_state` is the model's sharded state dictionary, whose shards the tensors follow.
    """
    inner = _only(optimizer)
    _allocate(inner.optimizer)
    state = inner.sharded_state_dict(model_state, is_loading=loading, metadata=metadata)
    if isinstance(inner, DistributedOptimizer):
        tensors = dict(enumerate(state["param_state"].values()))
        masters = {key: _renamed(value["param"]) for key, value in tensors.items()}
    else:
        nested = state["optimizer"] if isinstance(inner, Float16OptimizerWithFloat16Params) else state
        tensors = {key: value for key, value in nested["state"].items() if isinstance(key, int)}
        masters = dict(enumerate(master for group in state.get("fp32_from_fp16_params", ()) for master in group))
    moments = {key: {name: value[name] for name in MOMENTS} for key, value in tensors.items()}
    # In fp32 the model's own weights are the masters.
    return {"moments": moments, "masters": masters if inner.config.bf16 else {}}


def _renamed(master: Any) -> Any:
    """The master under the key that Megatron's other bf16 optimizer uses."""
    return replace(master, key=master.key.replace("optimizer.state.param.", "optimizer.state.fp32_param.", 1))


def restore(optimizer: ChainedOptimizer, tensors: dict[str, Any], step: int) -> None:
    """The optimizer holds loaded `tensors` (of `sharded_tensors`) and has made `step` steps."""
    inner = _only(optimizer)
    moments, masters = tensors["moments"], tensors.get("masters", {})
    with torch.no_grad():
        if isinstance(inner, DistributedOptimizer):
            _restore_sharded(inner, moments, masters)
        else:
            for key, parameter in enumerate(_parameters(inner.optimizer)):
                for name in MOMENTS:
                    inner.optimizer.state[parameter][name].copy_(moments[key][name])
                if masters:
                    parameter.copy_(masters[key])
        for state in inner.optimizer.state.values():
            # A tensor each: Megatron gives all parameters one, and torch's fused AdamW then counts it up once for each.
            state["step"] = torch.full_like(state["step"], step)


def tensors(optimizer: ChainedOptimizer) -> list[torch.Tensor]:
    """All that the optimizer itself holds on this rank: moments once there are any, and in bf16 the masters."""
    inner = _only(optimizer)
    parameters = _parameters(inner.optimizer)
    moments = [
        inner.optimizer.state[parameter][name]
        for parameter in parameters
        if inner.optimizer.state[parameter]
        for name in MOMENTS
    ]
    return [*moments, *(parameters if inner.config.bf16 else ())]


def _restore_sharded(inner: DistributedOptimizer, moments: dict[int, Any], masters: dict[int, Any]) -> None:
    """Each rank takes its range of every whole parameter, counted in the order of `sharded_tensors`."""
    key = -1
    for buffer_index, ranges in enumerate(inner.gbuf_ranges):
        owned = {
            parameter: span["param"]
            for buckets in ranges.values()
            for bucket in buckets
            for parameter, span in bucket["param_map"].items()
        }
        for parameter in inner.buffers[buffer_index].param_index_map:
            key += 1
            if parameter not in owned:
                continue
            part = slice(owned[parameter].start, owned[parameter].end)
            held = inner._get_main_param_and_optimizer_states(parameter)
            for name in MOMENTS:
                held[name].copy_(moments[key][name].flatten()[part])
            if masters:
                held["param"].copy_(masters[key].flatten()[part])


def _only(optimizer: ChainedOptimizer) -> Any:
    """The one optimizer in Megatron's chain: a dense model has no second one for experts."""
    (inner,) = optimizer.chained_optimizers
    return inner


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _allocate(optimizer: torch.optim.Optimizer) -> None:
    """Every parameter has moments, as torch would make them at the first step."""
    for parameter in _parameters(optimizer):
        if not optimizer.state[parameter]:
            optimizer.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                **{name: torch.zeros_like(parameter, memory_format=torch.preserve_format) for name in MOMENTS},
            }
