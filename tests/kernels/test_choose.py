"""The registry: what is chosen where, why, and what a GPU may not run before it was tried there."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from trainwright.kernels import flash_attn, validated
from trainwright.kernels.attention import KernelMissing, Wanted, choose
from trainwright.kernels.reference import reference_attention

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
NAMED: tuple[Wanted, ...] = ("reference", "sdpa")

needs_triton = pytest.mark.skipif(not validated.has_triton(), reason="triton exists for Linux alone")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """As if there were an sm_90 with the returned file of validated configurations, and no flash-attn."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(validated, "places", lambda: (tmp_path / "shipped.json", tmp_path / "users.json"))
    monkeypatch.setattr(flash_attn, "is_installed", lambda: False)
    return tmp_path / "users.json"


def entry(
    dtype: torch.dtype = torch.bfloat16, head_size: int = 128, operator: str = "attention"
) -> validated.Entry:  # fmt: skip
    made = validated.configuration(operator, dtype, head_size, GPU)
    return validated.Entry(made, "2026-01-01", "a GPU", "2.13.0", {"o": 1e-3})


@pytest.mark.parametrize("name", NAMED)
def test_what_is_asked_for_by_name_is_taken(name: Wanted) -> None:
    choice = choose(name, torch.float32, 128, CPU)
    assert (choice.name, choice.why, choice.warning) == (name, "asked for by name", None)


def test_a_cpu_takes_sdpa_where_it_knows_the_dtype() -> None:
    assert choose("auto", torch.bfloat16, 128, CPU).name == "sdpa"
    assert choose("auto", torch.float64, 128, CPU).name == "reference"
    assert "float64" in choose("auto", torch.float64, 128, CPU).why


@needs_triton
def test_a_cpu_interprets_the_portable_kernels_and_says_so() -> None:
    choice = choose("portable", torch.float32, 128, CPU)
    assert choice.name == "portable"
    assert "for checking, not for speed" in choice.why


@needs_triton
@pytest.mark.parametrize("wanted", ["auto", "portable"])
def test_a_gpu_refuses_what_was_not_validated_with_one_warning(wanted: Wanted, gpu: Path) -> None:
    choice = choose(wanted, torch.bfloat16, 128, GPU)
    assert choice.name == "sdpa"
    assert choice.warning is not None
    assert "bf16 heads of 128 on sm_90" in choice.warning
    assert "trainwright kernels validate" in choice.warning


@needs_triton
@pytest.mark.parametrize("wanted", ["auto", "portable"])
def test_a_gpu_takes_what_was_validated(wanted: Wanted, gpu: Path) -> None:
    validated.record(gpu, [], [entry()])
    choice = choose(wanted, torch.bfloat16, 128, GPU)
    assert (choice.name, choice.warning) == ("portable", None)
    assert choose(wanted, torch.bfloat16, 64, GPU).name == "sdpa"
    assert choose(wanted, torch.float16, 128, GPU).name == "sdpa"


@needs_triton
@pytest.mark.parametrize("change", [{"source": "0"}, {"triton": "3.0.0"}, {"chip": "sm_80"}, {"head_size": 64}])
def test_an_entry_holds_for_its_source_compiler_chip_and_size_alone(change: dict[str, Any], gpu: Path) -> None:
    right = entry()
    validated.record(gpu, [], [replace(right, configuration=replace(right.configuration, **change))])
    assert choose("portable", torch.bfloat16, 128, GPU).name == "sdpa"


@needs_triton
def test_the_kernels_for_hopper_give_way_to_the_portable_ones_with_one_warning(gpu: Path) -> None:
    choice = choose("hopper", torch.bfloat16, 128, GPU)
    assert (choice.name, choice.why) == ("sdpa", "in place of the Hopper kernels")
    assert "the Hopper kernels were not validated for bf16 heads of 128 on sm_90" in str(choice.warning)
    validated.record(gpu, [], [entry()])
    choice = choose("hopper", torch.bfloat16, 128, GPU)
    assert choice.name == "portable"
    assert "the Hopper kernels were not validated" in str(choice.warning)


@needs_triton
def test_auto_takes_the_kernels_for_hopper_where_they_were_validated(gpu: Path) -> None:
    validated.record(gpu, [], [entry(), entry(operator="hopper_attention")])
    choice = choose("auto", torch.bfloat16, 128, GPU)
    assert (choice.name, choice.warning) == ("hopper", None)
    assert "the forward pass in Triton" in choice.why
    assert choose("auto", torch.bfloat16, 64, GPU).name == "sdpa"
    validated.record(gpu, [], [entry(operator="hopper_gluon")])
    assert "the forward pass in Gluon" in choose("hopper", torch.bfloat16, 128, GPU).why


def test_the_kernels_for_hopper_are_refused_elsewhere_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KernelMissing, match=r"needs a GPU of sm_90 \(H100, H200\), and this is a CPU"):
        choose("hopper", torch.bfloat16, 128, CPU)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    with pytest.raises(KernelMissing, match="and this is sm_80"):
        choose("hopper", torch.bfloat16, 128, GPU)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(validated, "has_triton", lambda: True)
    with pytest.raises(KernelMissing, match="know no fp32 heads of 128"):
        choose("hopper", torch.float32, 128, GPU)


@needs_triton
def test_what_is_no_longer_right_loses_its_entry(gpu: Path) -> None:
    one, other = entry(), entry(head_size=64)
    validated.record(gpu, [], [one, other])
    validated.record(gpu, [one.configuration], [])
    assert validated.read(gpu) == [other]


def test_the_shipped_file_can_be_read() -> None:
    shipped, _ = validated.places()
    assert len(validated.read(shipped)) == len(json.loads(shipped.read_text()))


def test_what_is_not_installed_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch, gpu: Path) -> None:
    monkeypatch.setattr(validated, "has_triton", lambda: False)
    with pytest.raises(KernelMissing, match="needs triton, which is not installed: pip install triton"):
        choose("portable", torch.float32, 128, CPU)
    with pytest.raises(KernelMissing, match="needs flash-attn, which is not installed"):
        choose("flash-attn", torch.bfloat16, 128, GPU)
    with pytest.raises(KernelMissing, match="needs a GPU"):
        choose("flash-attn", torch.bfloat16, 128, CPU)
    choice = choose("auto", torch.bfloat16, 128, GPU)
    assert choice.name == "sdpa"
    assert "triton" in str(choice.warning)


def test_flash_attn_is_taken_where_it_is_installed_and_ours_was_not_tried(
    monkeypatch: pytest.MonkeyPatch, gpu: Path
) -> None:
    monkeypatch.setattr(flash_attn, "is_installed", lambda: True)
    assert choose("auto", torch.bfloat16, 128, GPU).name == "flash-attn"
    assert choose("auto", torch.float32, 128, GPU).name == "sdpa"
    with pytest.raises(KernelMissing, match="knows no fp32 heads of 128"):
        choose("flash-attn", torch.float32, 128, GPU)


def _stranger(
    q: Tensor, k: Tensor, v: Tensor, edges_q: Tensor, edges_k: Tensor, most_q: int, most_k: int, **options: Any
) -> Tensor:
    """flash_attn_varlen_func as its documentation has it, document by document."""
    assert options["causal"]
    assert options["deterministic"]
    parts = []
    for document in range(len(edges_q) - 1):
        queries, keys = (slice(int(edges[document]), int(edges[document + 1])) for edges in (edges_q, edges_k))
        assert queries.stop - queries.start <= most_q
        assert keys.stop - keys.start <= most_k
        q_SBHD, k_TBGD, v_TBGD = (x[:, None] for x in (q[queries], k[keys], v[keys]))
        parts.append(reference_attention(q_SBHD, k_TBGD, v_TBGD, None, options["softmax_scale"])[:, 0])
    return torch.cat(parts)


@pytest.mark.parametrize("edges", [None, [[0, 24, 24], [0, 7, 24]]])
def test_flash_attn_is_told_where_documents_lie(edges: list[list[int]] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flash_attn", SimpleNamespace(flash_attn_varlen_func=_stranger))
    q, k, v = (torch.randn(24, 2, heads, 8) for heads in (4, 2, 2))
    edges_BE = None if edges is None else torch.tensor(edges)
    torch.testing.assert_close(
        flash_attn.flash_attention(q, k, v, edges_BE), reference_attention(q, k, v, edges_BE), rtol=0, atol=1e-6
    )
    if edges is None:
        last = flash_attn.flash_attention(q[-3:], k, v)
        torch.testing.assert_close(last, reference_attention(q[-3:], k, v), rtol=0, atol=1e-6)
    else:
        with pytest.raises(ValueError, match="as many queries as keys"):
            flash_attn.flash_attention(q[-3:], k, v, edges_BE)
