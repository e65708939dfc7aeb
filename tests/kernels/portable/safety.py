"""What must never happen in a Triton attention, tried in the interpreter; prints a JSON object of name -> held.

TRITON_INTERPRET=1 python -m tests.kernels.portable.safety portable|hopper
"""

import json
import sys
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from trainwright.kernels.context_parallel.local import local_attention
from trainwright.kernels.correctness import DTYPES, Case, packed, tensors
from trainwright.kernels.packing import Packing

HOPPER = sys.argv[1:] == ["hopper"]
DTYPE = "fp16" if HOPPER else "fp32"
if HOPPER:
    from trainwright.kernels.hopper.operator import attention_backward, attention_forward
    from trainwright.kernels.hopper.operator import hopper_attention as attention
else:
    from trainwright.kernels.portable.operator import attention_backward, attention_forward
    from trainwright.kernels.portable.operator import portable_attention as attention


def _all(case: Case, q: Tensor, k: Tensor, v: Tensor, go: Tensor) -> tuple[Tensor, ...]:
    options = (case.packing.documents_N5, case.head_size**-0.5, True, None)
    o, lse = attention_forward(q, k, v, *options, not HOPPER)
    rest = () if HOPPER else (True,)
    return (o, *attention_backward(go, None, q, k, v, o, lse, *options, *rest))


def poison_stays_in_its_document(value: float) -> bool:
    """Other documents' keys, values, queries and gradients hold the value; the second document's results are equal."""
    case = Case("", packed(33, 40, 50), DTYPE)
    q, k, v = tensors(case)
    go = torch.randn(q.shape, generator=torch.Generator().manual_seed(2)).to(q)
    clean = _all(case, q, k, v, go)
    for x in (q, k, v, go):
        x[:, :33] = value
        x[:, 73:] = value
    return all(
        torch.equal(mine[:, 33:73], theirs[:, 33:73])
        for mine, theirs in zip(_all(case, q, k, v, go), clean, strict=True)
    )


def later_tokens_change_nothing() -> bool:
    case = Case("", packed(90), DTYPE)
    q, k, v = tensors(case)
    go = torch.zeros_like(q)
    before = _all(case, q, k, v, go)[0]
    k[:, 50:], v[:, 50:] = 1e4, -1e4
    return torch.equal(before[:, :50], _all(case, q, k, v, go)[0][:, :50])


def gaps_give_zeros() -> bool:
    case = Case("", ((0, 10, 20, 5, 25),), DTYPE)
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
    case, near = Case("", packed(20), "fp16"), x.contiguous()
    pairs = zip(_all(case, x, x, x, x), _all(case, near, near, near, near), strict=True)
    return all(torch.equal(far_apart, side_by_side) for far_apart, side_by_side in pairs)


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
        o = attention(q, k, k)
        (gradient,) = torch.autograd.grad(o.sum(), q)
    return o.shape == q.shape == gradient.shape and gradient.dtype == torch.bfloat16


def the_interface_of_training_is_kept() -> bool:
    """[tokens, rows, heads, size] with edges, whole and while decoding, equals the reference."""
    from trainwright.kernels.reference import reference_attention

    generator = torch.Generator().manual_seed(4)
    q, k, v = (torch.randn(40, 2, n, 64, generator=generator).to(DTYPES[DTYPE]) for n in (4, 2, 2))
    edges = torch.tensor([[0, 7, 40], [0, 40, 40]], dtype=torch.int32)
    tolerance = 2e-3 if HOPPER else 1e-5
    return all(
        torch.allclose(attention(queries, k, v, marks), reference_attention(queries, k, v, marks), atol=tolerance)
        for queries, marks in ((q, edges), (q, None), (q[-3:], None))
    )


def any_strides_are_taken() -> bool:
    """Rows that do not start at 16 bytes, and a last axis that is not dense but for the portable kernels' inputs."""
    case = Case("", packed(33, 40), DTYPE)
    inputs = (*tensors(case), torch.ones(1, 76, 4, 64, dtype=DTYPES[DTYPE]))
    crooked = [torch.cat((x, x[..., :1]), -1)[..., :64] for x in inputs]
    if HOPPER:
        crooked[0] = inputs[0].mT.contiguous().mT
    crooked[3] = inputs[3].mT.contiguous().mT
    return all(
        torch.equal(mine, theirs) for mine, theirs in zip(_all(case, *crooked), _all(case, *inputs), strict=True)
    )


def a_part_of_a_larger_attention_gives_its_gradients() -> bool:
    """As context parallelism asks: what attention gave over more keys than these comes with the gradients."""
    documents = ((0, 0, 3, 0, 21), (0, 4, 18, 22, 18), (1, 1, 5, 0, 9))
    generator = torch.Generator().manual_seed(5)
    q, go, k, v = (
        torch.randn(2, tokens, heads, 64, generator=generator).to(DTYPES[DTYPE])
        for tokens, heads in ((24, 4), (24, 4), (40, 2), (40, 2))
    )
    name: Literal["portable", "hopper"] = "hopper" if HOPPER else "portable"
    ours, plain = (local_attention(which, q.dtype, q.device) for which in (name, "reference"))
    held = []
    for causal in (True, False):
        o, lse = plain.forward(q, k, v, documents, 0.125, causal)
        more = lse + 0.5
        for mine, theirs in zip(
            (
                *ours.forward(q, k, v, documents, 0.125, causal),
                *ours.backward(go, q, k, v, o, more, documents, 0.125, causal),
            ),
            (o, lse, *plain.backward(go, q, k, v, o, more, documents, 0.125, causal)),
            strict=True,
        ):
            held.append(torch.allclose(mine, theirs, rtol=0.0, atol=4e-3 if HOPPER else 1e-5))
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
    "strides": any_strides_are_taken,
    "part of a larger attention": a_part_of_a_larger_attention_gives_its_gradients,
    "interface": the_interface_of_training_is_kept,
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps({name: check() for name, check in CHECKS.items()}))
