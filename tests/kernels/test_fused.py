"""The operators with backward passes of their own, against autograd over their definitions."""

import pytest
import torch
from torch.nn import functional

from trainwright.kernels import rope
from trainwright.kernels.cross_entropy import cross_entropy
from trainwright.kernels.rms_norm import add_rms_norm, rms_norm
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


def test_a_norm_of_a_sum_gives_the_sum_too() -> None:
    x, residual, weight = (normal(*shape).requires_grad_() for shape in ((3, 2, 8), (3, 2, 8), (8,)))
    total, normalised = add_rms_norm(x, residual, weight, 1e-5)
    assert torch.equal(total, x + residual)
    assert torch.equal(normalised, rms_norm(total, weight, 1e-5))
    assert torch.autograd.gradcheck(lambda *tensors: add_rms_norm(*tensors, 1e-5), (x, residual, weight))


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


def test_rope_takes_the_positions_it_is_given() -> None:
    """Two documents; the two chunks of a rank of two under context parallelism; other positions in each sequence."""
    cpu = torch.device("cpu")
    cos, sin = rope.tables(16, 8, 10_000.0, torch.float64, cpu)
    x = normal(6, 2, 3, 8).requires_grad_()
    documents = rope.rotate(x, cos, sin, rope.positions_of(((0, 4), (0, 2)), cpu))
    apart = [rope.rotate(part, cos[: len(part)], sin[: len(part)]) for part in x.split((4, 2))]
    assert torch.equal(documents, torch.cat(apart))
    whole = normal(16, 2, 3, 8)
    own = [*range(4, 8), *range(8, 12)]
    zig_zag = rope.rotate(whole[own], cos, sin, rope.positions_of(((4, 4), (8, 4)), cpu))
    assert torch.equal(zig_zag, rope.rotate(whole, cos, sin)[own])
    positions = torch.tensor([[0, 3], [1, 2], [2, 15], [3, 0], [4, 1], [5, 7]])
    mixed = rope.rotate(x, cos, sin, positions)
    assert torch.equal(mixed[:, 0], rope.rotate(x, cos[:6], sin[:6])[:, 0])
    assert torch.equal(mixed[2, 1], rope.rotate(x[2:3], cos[15:], sin[15:])[0, 1])
    assert torch.autograd.gradcheck(lambda x: rope.rotate(x, cos, sin, positions), (x,))


def test_rope_in_place_overwrites_what_autograd_can_spare() -> None:
    cos, sin = rope.tables(4, 8, 10_000.0, torch.float64, torch.device("cpu"))
    x = normal(4, 2, 3, 8).requires_grad_()
    fresh = x * 2.0
    turned = rope.rotate(fresh, cos, sin, in_place=True)
    assert turned.data_ptr() == fresh.data_ptr()
    assert torch.equal(turned, rope.rotate(x * 2.0, cos, sin))
    assert torch.autograd.gradcheck(lambda x: rope.rotate(x * 2.0, cos, sin, in_place=True), (x,))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        rope.rotate(x.exp(), cos, sin, in_place=True).sum().backward()


def test_the_ntk_base_stretches_the_slowest_pair_alone() -> None:
    """Up to the trained length, dynamic scaling is none at all."""
    base = rope.ntk_base(10_000.0, 3.0, 64)
    slowest, fastest = 62 / 64, 0.0
    assert base**-slowest == pytest.approx(10_000.0**-slowest / 3.0)
    assert base**-fastest == 1.0
    assert rope.dynamic_factor(2.0, 32_768, 32_768) == rope.dynamic_factor(2.0, 100, 32_768) == 1.0
    assert rope.dynamic_factor(2.0, 65_536, 32_768) == 3.0
    assert rope.ntk_base(1e6, 1.0, 128) == 1e6


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
