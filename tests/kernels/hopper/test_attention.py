"""Both forms of the attention for Hopper on a GPU of that chip: as near to float64 as plain torch, deaf to neighbours.

What needs no GPU, which is all of the one by descriptors but its speed, is in `tests/kernels/portable`.
"""

import itertools

import pytest
import torch

from trainwright.kernels.correctness import Case, Provider, complaints, measure, packed, tensors
from trainwright.kernels.validate import leaks

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


@pytest.mark.parametrize("provider", ["hopper", "gluon"])
@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("head_size", [64, 128])
@pytest.mark.parametrize("pack", PACKS)
def test_it_is_as_near_to_float64_as_plain_torch(pack: str, head_size: int, dtype: str, provider: Provider) -> None:
    windows = (None, 40) if provider == "hopper" else (None,)
    for causal, slices, window in itertools.product((True, False), (True, False), windows):
        case = Case(
            pack, PACKS[pack], dtype, head_size, causal=causal, slices=slices, window=window, provider=provider
        )  # fmt: skip
        assert complaints(measure(case, torch.device("cuda")), dtype) == []


@pytest.mark.parametrize("provider", ["hopper", "gluon"])
@pytest.mark.parametrize("value", [1e4, float("nan"), float("inf")])
def test_other_documents_do_not_reach_a_document(value: float, provider: Provider) -> None:
    assert not leaks(Case("", packed(133, 200, 90), "bf16", 128, provider=provider), value, torch.device("cuda"))


def test_what_the_kernels_do_not_know_is_refused() -> None:
    from trainwright.kernels.hopper.operator import attention_forward

    case = Case("", packed(64), "bf16", 64)
    q, k, v = tensors(case, device=torch.device("cuda"))
    for inputs in ((q.float(), k.float(), v.float()), (q[..., :32], k[..., :32], v[..., :32])):
        with pytest.raises(ValueError, match="the Hopper kernels know no"):
            attention_forward(*inputs, case.packing.documents_N5, 0.1, True, None, False)
