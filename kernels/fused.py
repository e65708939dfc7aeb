"""The fused operators: ours in Triton on a GPU where they were validated, else torch's, which define them.

Each takes what its namesake in `kernels.rms_norm`, `kernels.swiglu`, `kernels.rope` or `kernels.linear_cross_entropy`
takes, and gives the same.
"""

import importlib
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Literal, get_args

import torch
from torch import Tensor, distributed

from trainwright.kernels import validated

Operator = Literal["rms_norm", "rope", "swiglu", "linear_cross_entropy"]
OPERATORS: tuple[Operator, ...] = get_args(Operator)


@dataclass(frozen=True)
class Version:
    """A version of an operator, and the reason why it was taken."""

    name: Literal["torch", "portable"]
    why: str

    def module(self, operator: Operator) -> ModuleType:
        """Where its functions are."""
        folder = "trainwright.kernels.portable" if self.name == "portable" else "trainwright.kernels"
        return importlib.import_module(f"{folder}.{operator}")


@lru_cache
def choose(operator: Operator, dtype: torch.dtype, device: torch.device) -> Version:
    """The version to use for tensors of `dtype` on `device`."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return Version("torch", "our own kernels are for a GPU")
    if not validated.has_triton():
        return Version("torch", "triton is not installed")
    mine = validated.configuration(operator, dtype, 0, device)
    if validated.is_validated(mine):
        return Version("portable", "validated on this chip")
    what = f"{mine.dtype} on {mine.chip} with Triton {mine.triton}"
    return Version("torch", f"ours was not validated for {what} (`trainwright kernels validate` tries it)")


@lru_cache
def _module(operator: Operator, dtype: torch.dtype, device: torch.device) -> ModuleType:
    return choose(operator, dtype, device).module(operator)


def rms_norm(x_NH: Tensor, weight_H: Tensor, eps: float) -> Tensor:
    """The normalised x, in x's dtype. Differentiable in x and the weight."""
    normal: Tensor = _module("rms_norm", x_NH.dtype, x_NH.device).rms_norm(x_NH, weight_H, eps)
    return normal


def add_rms_norm(x_NH: Tensor, residual_NH: Tensor, weight_H: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x + residual in their dtype, and that normalised. Differentiable in all three tensors."""
    module = _module("rms_norm", x_NH.dtype, x_NH.device)
    total_NH, normal_NH = module.add_rms_norm(x_NH, residual_NH, weight_H, eps)
    return total_NH, normal_NH


def swiglu(x_N2F: Tensor) -> Tensor:
    """silu(gate_NF) * up_NF in x's dtype. Differentiable."""
    out_NF: Tensor = _module("swiglu", x_N2F.dtype, x_N2F.device).swiglu(x_N2F)
    return out_NF


def rotate(
    x_SBHD: Tensor, cos_P11D: Tensor, sin_P11D: Tensor, positions_SB: Tensor | None = None, *, in_place: bool = False
) -> Tensor:
    """x turned by its positions' angles, in a new tensor or in x itself. Differentiable in x."""
    module = _module("rope", x_SBHD.dtype, x_SBHD.device)
    turned: Tensor = module.rotate(x_SBHD, cos_P11D, sin_P11D, positions_SB, in_place=in_place)
    return turned


def linear_cross_entropy(
    hidden_NH: Tensor,
    weight_VH: Tensor,
    labels_N: Tensor,
    *,
    z_loss: float = 0.0,
    group: distributed.ProcessGroup | None = None,
) -> Tensor:
    """The loss of each token in fp32, without the logits of all. Differentiable once in hidden states and weight."""
    module = _module("linear_cross_entropy", hidden_NH.dtype, hidden_NH.device)
    loss_N: Tensor = module.linear_cross_entropy(hidden_NH, weight_VH, labels_N, z_loss=z_loss, group=group)
    return loss_N
