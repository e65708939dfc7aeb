"""What a plan says that may run an operator is what the registry takes, on any machine of that kind."""

import itertools
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch

from trainwright.compiler.passes.name_kernels import kernels_of
from trainwright.kernels import flash_attn, fused, validated
from trainwright.kernels.attention import KernelMissing, Wanted, choose

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}

pytestmark = pytest.mark.skipif(not validated.has_triton(), reason="triton exists for Linux alone")


def stage(wanted: str, precision: str, head_size: int, loss: str = "logits") -> Any:
    return SimpleNamespace(
        attention=wanted, precision=precision, loss=loss, model=SimpleNamespace(head_size=head_size)
    )  # fmt: skip


class Everything(frozenset[str]):
    def __contains__(self, operator: object) -> bool:
        return True


def machine(monkeypatch: pytest.MonkeyPatch, *, has_gpu: bool, right: frozenset[str], has_flash_attn: bool) -> None:
    """With a GPU of sm_90, where the operators in `right` were validated, or with none."""
    fused.choose.cache_clear()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(validated, "is_validated", lambda wanted: wanted.operator in right)
    monkeypatch.setattr(flash_attn, "is_installed", lambda: has_flash_attn)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("head_size", [64, 320])
@pytest.mark.parametrize("wanted", get_args(Wanted))
def test_attention(wanted: Wanted, head_size: int, precision: str, device: str, monkeypatch: Any) -> None:
    """All of a plan's kernels are taken on some machine; the first where all can run, and the last on any."""
    taken = []
    rights = (Everything(), frozenset({"attention"}), frozenset[str]())
    for right, has_flash_attn in itertools.product(rights, (True, False)):
        machine(monkeypatch, has_gpu=device == "cuda", right=right, has_flash_attn=has_flash_attn)
        try:
            taken.append(choose(wanted, DTYPES[precision], head_size, torch.device(device)).name)
        except KernelMissing:
            continue
    if taken:
        assert tuple(dict.fromkeys(taken)) == kernels_of(stage(wanted, precision, head_size), device)["attention"]
    else:  # refused before a run begins, in one sentence
        assert (wanted == "portable" and head_size > 256) or wanted in ("hopper", "flash-attn")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("loss", ["logits", "fused"])
def test_the_fused_operators(loss: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = kernels_of(stage("auto", "bf16", 64, loss), device)
    assert set(planned) - {"attention", "cross_entropy"} == {
        operator for operator in fused.OPERATORS if loss == "fused" or operator != "linear_cross_entropy"
    }
    assert ("cross_entropy" in planned) == (loss == "logits")
    for operator in set(planned) & set(fused.OPERATORS):
        taken = []
        for right in (Everything(), frozenset[str]()):
            machine(monkeypatch, has_gpu=device == "cuda", right=right, has_flash_attn=False)
            taken.append(fused.choose(operator, torch.bfloat16, torch.device(device)).name)
        assert tuple(dict.fromkeys(taken)) == planned[operator]
    fused.choose.cache_clear()
