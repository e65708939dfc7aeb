"""The operators with backward passes of their own, against autograd over their definitions."""

import pytest
import torch
from torch.nn import functional

from trainwright.kernels import rope
from trainwright.kernels.cross_entropy import cross_entropy
from trainwright.kernels.rms_norm import rms_norm
from trainwright.kernels.swiglu import swiglu


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def test_rms_norm_has_the_gradients_of_its_definition() -> None:
    x, weight = normal(3, 2, 8).requires_grad_(), normal(8).requires_grad_()
    expected = x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * weight
    torch.testing.assert_close(rms_norm(x, weight, 1e-5), expected)
    assert torch.autograd.gradcheck(lambda x, weight: rms_norm(x, weight, 1e-5), (x, weight))


def test_rms_norm_rounds_before_the_weight() -> None:
    x = normal(4, 8).bfloat16()
    weight = torch.full((8,), 3.0, dtype=torch.bfloat16)
    wide = x.float()
    expected = (wide * (wide.square().mean(-1, keepdim=True) + 1e-5).rsqrt()).bfloat16() * weight
    assert torch.equal(rms_norm(x, weight, 1e-5), expected)


def test_swiglu_has_the_gradients_of_its_definition() -> None:
    x = normal(3, 2, 8).requires_grad_()
    gate, up = x.chunk(2, dim=-1)
    torch.testing.assert_close(swiglu(x), functional.silu(gate) * up)
    assert torch.autograd.gradcheck(swiglu, (x,))


def test_rope_turns_by_half_rotation_and_depends_on_distance_alone() -> None:
    cos, sin = rope.tables(16, 8, 10_000.0, torch.float64, torch.device("cpu"))
    x = normal(16, 2, 3, 8).requires_grad_()
    angles = torch.cat((cos, cos), -1), torch.cat((sin, sin), -1)
    half = torch.cat((-x[..., 4:], x[..., :4]), -1)
    torch.testing.assert_close(rope.rotate(x, cos, sin), x * angles[0] + half * angles[1])
    assert torch.autograd.gradcheck(lambda x: rope.rotate(x, cos, sin), (x,))
    same = x.detach()[:1].expand(16, -1, -1, -1)
    turned = rope.rotate(same, cos, sin)
    products = torch.einsum("sbhd,tbhd->st", turned, turned)
    torch.testing.assert_close(products[:-1, :-1], products[1:, 1:], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cross_entropy_equals_torch(dtype: torch.dtype) -> None:
    logits = normal(5, 33).to(dtype)
    labels = torch.tensor([0, 32, 7, 7, 1])
    weights = torch.tensor([1.0, 0.0, 1.0, 2.0, 1.0])
    mine, theirs = logits.clone().requires_grad_(), logits.clone().float().requires_grad_()
    loss = cross_entropy(mine, labels)
    expected = functional.cross_entropy(theirs, labels, reduction="none")
    torch.testing.assert_close(loss, expected)
    (actual,) = torch.autograd.grad((loss * weights).sum(), mine)
    (wanted,) = torch.autograd.grad((expected * weights).sum(), theirs)
    torch.testing.assert_close(actual, wanted.to(dtype), rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-6)


def test_cross_entropy_does_not_depend_on_its_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = torch.tensor([0, 32, 7, 7, 1])
    whole, pieces = (normal(5, 33).float().requires_grad_() for _ in range(2))
    expected = cross_entropy(whole * 1.0, labels)
    expected.sum().backward()
    monkeypatch.setattr("trainwright.kernels.cross_entropy._CPU_PIECE_BYTES", 2 * 33 * 4)
    loss = cross_entropy(pieces * 1.0, labels)
    loss.sum().backward()
    assert torch.equal(loss, expected)
    assert torch.equal(pieces.grad, whole.grad)
