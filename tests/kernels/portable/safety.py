"""What must never happen in the Triton attention, tried in the interpreter; prints a JSON object of name -> held.

TRITON_INTERPRET=1 python -m tests.kernels.portable.safety
"""

import json
from collections.abc import Callable

import torch
from torch import Tensor

from trainwright.kernels import reference
from trainwright.kernels.correctness import Case, packed, tensors
from trainwright.kernels.packing import Packing
from trainwright.kernels.portable.operator import attention_backward, attention_forward, portable_attention


def _all(case: Case, q: Tensor, k: Tensor, v: Tensor, go: Tensor) -> tuple[Tensor, ...]:
    documents = torch.tensor(case.documents, dtype=torch.int32)
    scale = case.head_size**-0.5
    o, lse = attention_forward(q, k, v, documents, scale, True, None, True)
    return (o, *attention_backward(go, None, q, k, v, o, lse, documents, scale, True, None, True))


def poison_stays_in_its_document(value: float) -> bool:
    """Other documents' keys, values, queries and gradients hold the value; the second document's results are equal."""
    case = Case("", packed(33, 40, 50))
    q, k, v = tensors(case)
    go = torch.randn(q.shape, generator=torch.Generator().manual_seed(2))
    clean = _all(case, q, k, v, go)
    for x in (q, k, v, go):
        x[:, :33] = value
        x[:, 73:] = value
    return all(
        torch.equal(mine[:, 33:73], theirs[:, 33:73])
        for mine, theirs in zip(_all(case, q, k, v, go), clean, strict=True)
    )


def later_tokens_change_nothing() -> bool:
    case = Case("", packed(90))
    q, k, v = tensors(case)
    go = torch.zeros_like(q)
    before = _all(case, q, k, v, go)[0]
    k[:, 50:], v[:, 50:] = 1e4, -1e4
    return torch.equal(before[:, :50], _all(case, q, k, v, go)[0][:, :50])


def gaps_give_zeros() -> bool:
    case = Case("", ((0, 10, 20, 5, 25),))
    q, k, v = tensors(case)
    o, gq, gk, gv = _all(case, q, k, v, torch.ones_like(q))
    outside = [o[:, :10], o[:, 30:], gq[:, :10], gq[:, 30:], gk[:, :5], gk[:, 30:], gv[:, :5], gv[:, 30:]]
    return all(bool((part == 0).all()) for part in outside)


def offsets_are_64_bit() -> bool:
    """Heads more than 2^31 elements apart, in 4 GiB of memory that is touched only where the heads lie."""
    apart = 2**31 + 64
    buffer = torch.empty(apart + 20 * 64, dtype=torch.float16)
    x = buffer.as_strided((1, 20, 2, 64), (0, 64, apart, 1))
    x.copy_(torch.randn(1, 20, 2, 64, generator=torch.Generator().manual_seed(3)))
    packing = Packing.whole_rows(1, 20, 20)
    o, _ = attention_forward(x, x, x, packing.documents_N5, 0.125, True, None, True)
    return torch.allclose(o, reference.attend(x, x, x, packing, scale=0.125)[0], atol=2e-3)


def many_short_documents_start_no_idle_program() -> bool:
    documents = packed(*[3] * 200, 400)
    tiles = Packing(torch.tensor(documents, dtype=torch.int32)).query_tiles(
        64, causal=True, window=None, device=torch.device("cpu")
    )
    return len(tiles) == 200 + 7 and tiles[0].tolist() == [200, 6]  # the longest row of tiles first


def recomputation_and_fake_tensors_see_one_operator() -> bool:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        q = torch.empty(64, 2, 4, 64, dtype=torch.bfloat16, requires_grad=True)
        k = torch.empty(64, 2, 2, 64, dtype=torch.bfloat16, requires_grad=True)
        o = portable_attention(q, k, k)
        (gradient,) = torch.autograd.grad(o.sum(), q)
    return o.shape == q.shape == gradient.shape and gradient.dtype == torch.bfloat16


def the_interface_of_training_is_kept() -> bool:
    """[tokens, rows, heads, size] with edges, whole and while decoding, equals the reference."""
    from trainwright.kernels.reference import reference_attention

    generator = torch.Generator().manual_seed(4)
    q, k, v = (torch.randn(40, 2, n, 32, generator=generator) for n in (4, 2, 2))
    edges = torch.tensor([[0, 7, 40], [0, 40, 40]], dtype=torch.int32)
    held = []
    for queries, marks in ((q, edges), (q, None), (q[-3:], None)):
        held.append(
            torch.allclose(
                portable_attention(queries, k, v, marks), reference_attention(queries, k, v, marks), atol=1e-5
            )
        )
    return all(held)


CHECKS: dict[str, Callable[[], bool]] = {
    "large values of other documents": lambda: poison_stays_in_its_document(1e4),
    "NaN of other documents": lambda: poison_stays_in_its_document(float("nan")),
    "infinities of other documents": lambda: poison_stays_in_its_document(float("inf")),
    "later tokens": later_tokens_change_nothing,
    "gaps": gaps_give_zeros,
    "64-bit offsets": offsets_are_64_bit,
    "a program for each tile": many_short_documents_start_no_idle_program,
    "fake tensors": recomputation_and_fake_tensors_see_one_operator,
    "interface": the_interface_of_training_is_kept,
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps({name: check() for name, check in CHECKS.items()}))
