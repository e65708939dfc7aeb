"""What our operators keep for the backward pass: the counts behind `compiler/cost/frameworks/trainwright.toml`."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from trainwright.kernels.rms_norm import add_rms_norm, rms_norm
from trainwright.kernels.rope import rotate, tables
from trainwright.kernels.sdpa import sdpa_attention
from trainwright.kernels.swiglu import swiglu

TOKENS, WIDTH = 256, 128
HEADS, GROUPS, SIZE = 8, 2, 16


def saved_bytes(make: Callable[[], Tensor]) -> int:
    """Bytes of all storages that are kept, each counted once."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        make()
    return sum(kept.values())


def values(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.bfloat16).requires_grad_()


def test_a_norm_keeps_its_input_and_one_number_a_token() -> None:
    x, weight = values(TOKENS, WIDTH), values(WIDTH)
    assert saved_bytes(lambda: rms_norm(x, weight, 1e-5)) == TOKENS * (2 * WIDTH + 4) + 2 * WIDTH


def test_a_norm_of_a_sum_keeps_the_sum() -> None:
    x, residual, weight = values(TOKENS, WIDTH), values(TOKENS, WIDTH), values(WIDTH)
    assert saved_bytes(lambda: add_rms_norm(x, residual, weight, 1e-5)[1]) == TOKENS * (2 * WIDTH + 4) + 2 * WIDTH


def test_an_activation_keeps_gate_and_up() -> None:
    x = values(TOKENS, 2 * WIDTH)
    assert saved_bytes(lambda: swiglu(x)) == TOKENS * 2 * 2 * WIDTH


def test_a_rotation_keeps_its_tables_alone() -> None:
    x = values(TOKENS, 1, HEADS, SIZE)
    cos, sin = tables(TOKENS, SIZE, 1e4, torch.bfloat16, torch.device("cpu"))
    assert saved_bytes(lambda: rotate(x, cos, sin)) == cos.nbytes + sin.nbytes


@pytest.mark.parametrize("packed", [False, True])
def test_attention_keeps_its_inputs_its_output_and_a_number_a_head(packed: bool) -> None:
    """Packed: padded copies of all four, and where each token lies."""
    q, k, v = values(TOKENS, 1, HEADS, SIZE), values(TOKENS, 1, GROUPS, SIZE), values(TOKENS, 1, GROUPS, SIZE)
    edges = torch.tensor([[0, 48, 112, 160, TOKENS]], dtype=torch.int32) if packed else None
    slots = 2 * 48 + 2 * 96 if packed else TOKENS  # 64 and 96 share a power of two
    expected = slots * (2 * SIZE * (2 * HEADS + 2 * GROUPS) + 4 * HEADS) + (8 * TOKENS if packed else 0)
    assert saved_bytes(lambda: sdpa_attention(q, k, v, edges, None)) == expected
