"""Which version of a row-wise operator runs: ours only on a GPU where it was validated, dtype by dtype."""

from collections.abc import Iterator

import pytest
import torch

from trainwright.kernels import fused, rms_norm, rope, swiglu, validated
from trainwright.kernels.validated import Configuration

GPU = torch.device("cuda", 0)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An H200 with Triton where RMSNorm was validated for bf16."""

    def configuration(operator: str, dtype: torch.dtype, head_size: int, device: torch.device) -> Configuration:
        return Configuration(operator, "source", "3.6.0", "sm_90", validated.name_of(dtype), head_size)

    fused.choose.cache_clear()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(validated, "has_triton", lambda: True)
    monkeypatch.setattr(validated, "configuration", configuration)
    right = configuration("rms_norm", torch.bfloat16, 0, GPU)
    monkeypatch.setattr(validated, "is_validated", lambda wanted: wanted == right)
    yield
    fused.choose.cache_clear()


@pytest.mark.usefixtures("gpu")
def test_ours_runs_where_it_was_validated() -> None:
    taken = fused.choose("rms_norm", torch.bfloat16, GPU)
    assert (taken.name, taken.why) == ("portable", "validated on this chip")


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(("operator", "dtype"), [("rms_norm", torch.float16), ("swiglu", torch.bfloat16)])
def test_ours_does_not_run_where_it_was_not(operator: fused.Operator, dtype: torch.dtype) -> None:
    taken = fused.choose(operator, dtype, GPU)
    assert taken.name == "torch"
    assert "on sm_90 with Triton 3.6.0 (`trainwright kernels validate` tries it)" in taken.why


@pytest.mark.usefixtures("gpu")
def test_ours_does_not_run_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validated, "has_triton", lambda: False)
    assert fused.choose("rms_norm", torch.bfloat16, GPU).why == "triton is not installed"


def test_a_cpu_takes_torchs_versions() -> None:
    cpu = torch.device("cpu")
    assert fused.choose("rope", torch.float32, cpu).name == "torch"
    x, weight = torch.randn(3, 1, 2, 8), torch.randn(8)
    cos, sin = rope.tables(5, 8, 1e4, torch.float32, cpu)
    positions = rope.positions_of(((2, 3),), cpu)
    assert torch.equal(fused.rms_norm(x, weight, 1e-5), rms_norm.rms_norm(x, weight, 1e-5))
    assert torch.equal(fused.add_rms_norm(x, x, weight, 1e-5)[1], rms_norm.rms_norm(2 * x, weight, 1e-5))
    assert torch.equal(fused.swiglu(x), swiglu.swiglu(x))
    assert torch.equal(fused.rotate(x, cos, sin, positions), rope.rotate(x, cos, sin, positions))
