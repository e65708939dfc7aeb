"""Every implementation of attention against the reference; no token sees another document."""

import pytest
import torch
from torch import Tensor

from trainwright.kernels.reference import reference_attention
from trainwright.kernels.sdpa import sdpa_attention

# A single document, documents of very different lengths, documents of no tokens at every place.
EDGES = [[0, 24, 24, 24, 24, 24], [0, 1, 3, 20, 24, 24], [0, 0, 11, 11, 24, 24]]


def inputs(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(24, len(EDGES), heads, 8, generator=generator, dtype=dtype).requires_grad_() for heads in (6, 2, 2)
    )
    return q, k, v


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("edges", [None, torch.tensor(EDGES, dtype=torch.int32)], ids=["whole", "packed"])
def test_sdpa_equals_the_reference_forward_and_backward(dtype: torch.dtype, edges: Tensor | None) -> None:
    tensors = inputs(dtype)
    expected = reference_attention(*tensors, edges, None)
    actual = sdpa_attention(*tensors, edges, None)
    direction = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)
    for mine, theirs in zip(
        torch.autograd.grad((actual * direction).sum(), tensors),
        torch.autograd.grad((expected * direction).sum(), tensors),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=tolerance)


@pytest.mark.parametrize("attend", [reference_attention, sdpa_attention])
@pytest.mark.parametrize("poison", [float("nan"), 1e30])
def test_nothing_of_one_document_reaches_another(attend, poison: float) -> None:  # type: ignore[no-untyped-def]
    edges = torch.tensor([[0, 9, 24]] * len(EDGES))
    tensors = inputs(torch.float32)
    clean = attend(*tensors, edges, None)
    for poisoned, safe in ((slice(0, 9), slice(9, 24)), (slice(9, 24), slice(0, 9))):
        spoilt = [x.detach().clone() for x in tensors]
        for x in spoilt:
            x[poisoned] = poison
            x.requires_grad_()
        output = attend(*spoilt, edges, None)
        assert torch.equal(output[safe], clean[safe])
        for gradient in torch.autograd.grad(output[safe].sum(), spoilt):
            assert torch.isfinite(gradient[safe]).all()


def test_no_token_sees_a_later_one() -> None:
    tensors = inputs(torch.float32)
    before = sdpa_attention(*tensors, None, None)
    q, k, v = (torch.cat((x[:20], torch.full_like(x[20:], 7.0))) for x in tensors)
    torch.testing.assert_close(sdpa_attention(q, k, v, None, None)[:20], before[:20])


@pytest.mark.parametrize("attend", [reference_attention, sdpa_attention])
@pytest.mark.parametrize("queries", [1, 5])
def test_the_last_queries_alone_give_the_same_as_all(attend, queries: int) -> None:  # type: ignore[no-untyped-def]
    q, k, v = inputs(torch.float32)
    whole = attend(q, k, v, None, None)
    torch.testing.assert_close(attend(q[-queries:], k, v, None, None), whole[-queries:])


def test_packed_decoding_is_refused() -> None:
    q, k, v = inputs(torch.float32)
    with pytest.raises(ValueError, match="as many queries as keys"):
        sdpa_attention(q[-1:], k, v, torch.tensor(EDGES), None)
