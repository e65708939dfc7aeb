"""The Gluon attention on a GPU of sm_90: as near to float64 as plain torch, and deaf to other documents."""

import itertools

import pytest
import torch

from trainwright.kernels import reference
from trainwright.kernels.correctness import DTYPES, Case, complaints, errors_of, packed, tensors

pytest.importorskip("triton", reason="the Hopper kernels need triton, which exists for Linux alone")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available() or torch.cuda.get_device_capability() != (9, 0), reason="needs a GPU of sm_90"
    ),
]

PACKS = {
    "1": packed(1),
    "300+129+1+0+515": packed(300, 129, 1, 0, 515),
    "more keys than queries": ((0, 0, 20, 0, 290), (1, 0, 140, 10, 141)),
    "more queries than keys": ((0, 0, 290, 0, 20),),
    "no keys": ((0, 0, 30, 0, 0),),
    "gaps": ((0, 0, 133, 0, 133), (0, 140, 130, 144, 136), (1, 5, 164, 2, 170)),
}


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("head_size", [64, 128])
@pytest.mark.parametrize("pack", PACKS)
def test_it_is_as_near_to_float64_as_plain_torch(pack: str, head_size: int, dtype: str) -> None:
    from trainwright.kernels.hopper.operator import attention_forward

    for causal, slices in itertools.product((True, False), (True, False)):
        case = Case(pack, PACKS[pack], dtype, head_size, causal=causal, slices=slices)
        inputs = tensors(case, device=torch.device("cuda"))
        options = {"scale": head_size**-0.5, "causal": causal}
        got = attention_forward(*inputs, case.packing, **options)
        exact = reference.attend(*(x.double() for x in inputs), case.packing, **options)
        plain = reference.attend(*inputs, case.packing, **options)
        errors = {
            name: errors_of(want, mine, theirs)
            for name, want, mine, theirs in zip(("o", "lse"), exact, got, plain, strict=True)
            if want.isfinite().any()
        }
        assert complaints(errors, dtype) == []


@pytest.mark.parametrize("value", [1e4, float("nan"), float("inf")])
def test_other_documents_do_not_reach_a_document(value: float) -> None:
    from trainwright.kernels.hopper.operator import attention_forward

    case = Case("", packed(133, 200, 90), "bf16", 128)
    q, k, v = tensors(case, device=torch.device("cuda"))
    clean, _ = attention_forward(q, k, v, case.packing, 0.1)
    for x in (q, k, v):
        x[:, :133] = value
        x[:, 333:] = value
    assert torch.equal(attention_forward(q, k, v, case.packing, 0.1)[0][:, 133:333], clean[:, 133:333])


def test_what_the_accelerator_cannot_take_is_refused() -> None:
    from trainwright.kernels.hopper.operator import attention_forward

    case = Case("", packed(64), "bf16", 64)
    q, k, v = tensors(case, device=torch.device("cuda"))
    crooked = torch.empty(1, 67, 2, 68, dtype=DTYPES["bf16"], device="cuda")[..., 1:65]
    for inputs in ((q.float(), k.float(), v.float()), (q[..., :32], k[..., :32], v[..., :32]), (q, k, crooked)):
        with pytest.raises(ValueError, match="the Hopper kernel"):
            attention_forward(*inputs, case.packing, 0.1)
