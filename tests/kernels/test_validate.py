"""The harness that tries our kernels: it finds what is wrong, records only what is right, and runs without a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import environment
from torch import Tensor

from trainwright.kernels import reference, validate, validated
from trainwright.kernels.bench import Shape, _beside_cudnn, shapes
from trainwright.kernels.correctness import complaints, errors_of
from trainwright.kernels.fused import OPERATORS
from trainwright.kernels.packing import Packing

needs_triton = pytest.mark.skipif(not validated.has_triton(), reason="triton exists for Linux alone")


def kernels(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trainwright", "kernels", *arguments]
    hidden = {"CUDA_VISIBLE_DEVICES": "", "HOME": str(folder)}
    return subprocess.run(
        command, cwd=folder, env=environment() | hidden, capture_output=True, text=True, check=False, timeout=300
    )


def test_an_error_of_more_than_twice_plain_torchs_is_found() -> None:
    want = torch.randn(64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plain = want.float()
    assert complaints({"o": errors_of(want, plain, plain)}, "fp32") == []
    assert "o is off by" in complaints({"o": errors_of(want, plain + 1e-3, plain)}, "fp32")[0]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_found(value: float) -> None:
    want = torch.ones(4, dtype=torch.float64)
    got = want.clone()
    got[2] = value
    assert len(complaints({"o": errors_of(want, got, want)}, "bf16")) == 2


@needs_triton
def test_only_what_is_right_is_recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    monkeypatch.setattr(validated, "own_place", lambda: tmp_path / "here" / "validated.json")
    device = torch.device("cuda", 0)
    right = validate.Tried("attention", "bf16", 128, errors={"o": 1e-3})
    other = validate.Tried("attention", "bf16", 64, errors={"o": 1e-3})
    place = validate.write([right, other], device)
    assert [entry.configuration.head_size for entry in validated.read(place)] == [128, 64]
    other.wrong.append("50 backward passes are not equal bit by bit")
    assert [entry.configuration.head_size for entry in validated.read(validate.write([other], device))] == [128]


@needs_triton
@pytest.mark.parametrize("off", [0.0, 0.1])
def test_the_gluon_kernel_is_held_to_float64(off: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the kernel, which no CPU runs, is right or off by as much."""
    from trainwright.kernels.hopper import operator

    def attend(q: Tensor, k: Tensor, v: Tensor, documents: Tensor, scale: float, causal: bool, *rest: Any) -> Any:
        assert rest == (None, True)  # no window, and in Gluon
        o, lse = reference.attend(q, k, v, Packing(documents), scale=scale, causal=causal)
        return o + off, lse

    monkeypatch.setattr(operator, "attention_forward", attend)
    tried = validate.attention("gluon", "bf16", 64, validate.DRY_QUICK, torch.device("cpu"))
    assert (tried.operator, tried.cases >= 10) == ("hopper_gluon", True)
    assert bool(tried.wrong) == bool(off)


@pytest.mark.slow
@needs_triton
def test_without_a_gpu_the_harness_runs_and_records_nothing(tmp_path: Path) -> None:
    before = validated.own_place().read_bytes()
    done = kernels(tmp_path, "validate", "--quick", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(done.stdout)
    assert (document["device"], document["recorded"]) == ("cpu", None)
    tried = {row["operator"]: row for row in document["tried"]}
    assert set(tried) == {"attention", "hopper_attention", *OPERATORS}
    assert tried["attention"]["cases"] >= 18
    assert all(row["wrong"] == [] and row["errors"] for row in document["tried"])
    assert validated.own_place().read_bytes() == before


@pytest.mark.slow
@needs_triton
def test_the_bench_runs_without_a_gpu_and_says_that_it_shows_nothing(tmp_path: Path) -> None:
    done = kernels(tmp_path, "bench", "-o", "results/bench.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no figure here says anything of a GPU" in done.stdout
    document = json.loads((tmp_path / "results" / "bench.json").read_text())
    assert document["dry_run"] is True
    rows: dict[tuple[str, str], dict[str, Any]] = {(row["shape"], row["provider"]): row for row in document["rows"]}
    for provider in ("ours", "ours, hopper"):
        assert rows["packed 96", provider]["backward_tflops"] > 0
    assert "cannot" in rows["dense 96", "cudnn"]
    assert {"flex", "flash", "sdpa per document"} <= {provider for shape, provider in rows if shape == "packed 96"}
    assert len({shape for shape, _ in rows}) == 6


def test_flops_are_those_that_documents_let_tokens_see() -> None:
    whole = Shape("", tokens=8, rows=2, heads=4, groups=1, head_size=64)
    halves = Shape("", tokens=8, rows=2, heads=4, groups=1, head_size=64, documents=(4, 4))
    assert whole.forward_flops == 4 * 2 * 4 * 64 * 36
    assert halves.forward_flops == 4 * 2 * 4 * 64 * 20
    assert halves.edges_BE is not None
    assert halves.edges_BE.tolist() == [[0, 4, 8], [0, 4, 8]]


def test_packed_shapes_of_a_gpu_fill_their_rows() -> None:
    packs = [shape for shape in shapes(on_gpu=True) if shape.documents]
    assert len(packs) == 4
    assert all(sum(shape.documents) == shape.tokens for shape in packs)


def test_the_ratio_is_to_the_best_form_of_cudnn() -> None:
    times = {"ours": 4.0, "cudnn": 3.0, "cudnn, heads repeated": 2.0}
    rows = [{"provider": name, "forward_median_ms": time} for name, time in times.items()]
    assert [row["forward_of_cudnn"] for row in _beside_cudnn([*rows, {"provider": "flex", "cannot": ""}])[:3]] == [
        0.5,
        2 / 3,
        1.0,
    ]


def test_a_process_that_could_not_run_kernels_says_so() -> None:
    environ = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "trainwright.kernels.validate"]
    done = subprocess.run(
        command, env=environ | {"CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "set TRITON_INTERPRET=1 on a CPU" in done.stderr
