"""Every layout computes the same training run."""

from collections.abc import Callable
from typing import Any

import pytest

World = Callable[..., Any]

PAIRS: dict[str, dict[str, Any]] = {
    "TP 2": {"tensor": 2},
    "TP 2 + SP": {"tensor": 2, "sequence_parallel": True},
    "PP 2": {"pipeline": 2},
    "PP 2 x VPP 2": {"pipeline": 2, "virtual_pipeline": 2, "schedule": "interleaved"},
    "DP 2 + distributed optimizer": {"data": 2},
    "DP 2, whole optimizer": {"data": 2, "zero": 0},
    "TP 2, full recomputation": {"tensor": 2, "recompute": "full", "micro_batch": 4},
    "TP 2, fused loss": {"tensor": 2, "loss": "fused"},
    "TP 2 + SP, fused loss": {"tensor": 2, "sequence_parallel": True, "loss": "fused"},
    "PP 2 x VPP 2, fused loss": {"pipeline": 2, "virtual_pipeline": 2, "schedule": "interleaved", "loss": "fused"},
    "DP 2, fused loss": {"data": 2, "loss": "fused"},
    "CP 2": {"context": 2},
    "CP 2, a ring, selective recomputation": {"context": 2, "context_exchange": "ring", "recompute": "selective"},
    "CP 2, all to all": {"context": 2, "context_exchange": "all_to_all"},
    "CP 2, fused loss": {"context": 2, "loss": "fused"},
}
FOURS: dict[str, dict[str, Any]] = {
    "CP 4": {"context": 4},
    "CP 4, all to all, whole optimizer": {"context": 4, "context_exchange": "all_to_all", "zero": 0},
    "CP 4 of 2 x 2, heads and a ring": {"context": 4, "context_heads": 2, "context_exchange": "ring"},
    "CP 4 of 2 x 2, heads and gathered, fused loss": {"context": 4, "context_heads": 2, "loss": "fused"},
    "CP 2 x TP 2 + SP, a ring": {"context": 2, "tensor": 2, "sequence_parallel": True, "context_exchange": "ring"},
    "CP 2 x PP 2": {"context": 2, "pipeline": 2},
    "CP 2 x DP 2": {"context": 2, "data": 2},
    "CP 2 x DP 2, optimizer over the ranks of a sequence": {"context": 2, "data": 2, "zero_group": 1},
}
EIGHTS: dict[str, dict[str, Any]] = {
    "TP 2 x PP 2 x DP 2": {"tensor": 2, "pipeline": 2, "data": 2},
    "TP 2 x DP 4, optimizer over groups of 2": {"tensor": 2, "data": 4, "zero_group": 2, "micro_batch": 1},
    "TP 2 x DP 4, optimizer over groups of 1": {"tensor": 2, "data": 4, "zero_group": 1, "micro_batch": 1},
}


def apart(run: list[list[float]], reference: list[list[float]]) -> tuple[float, float]:
    """The largest relative difference of any step's loss, and of any step's gradient norm."""
    loss, norm = (
        max(abs(row[i] - other[i]) / other[i] for row, other in zip(run, reference, strict=True)) for i in range(2)
    )
    return loss, norm


def check(differences: dict[str, tuple[float, float]]) -> None:
    for name, (loss, norm) in differences.items():
        assert loss < 1e-5, (name, differences)
        assert norm < 1e-4, (name, differences)  # amplifies what rounding does to the weights


@pytest.mark.slow
def test_every_layout_gives_the_losses_of_one_process(world: World) -> None:
    job = {"do": "losses", "steps": 8}
    (reference,) = world(1, **job, layouts=[{}])
    assert reference[-1][0] < 0.8 * reference[0][0]
    pairs = dict(zip(PAIRS, world(2, **job, layouts=list(PAIRS.values())), strict=True))
    fours = dict(zip(FOURS, world(4, **job, layouts=list(FOURS.values())), strict=True))
    eights = dict(zip(EIGHTS, world(8, **job, layouts=list(EIGHTS.values())), strict=True))
    differences = {name: apart(run, reference) for name, run in {**pairs, **fours, **eights}.items()}
    print(differences)
    check(differences)


@pytest.mark.slow
def test_tied_embeddings_and_biases_are_shared_out_right(world: World) -> None:
    job = {"do": "losses", "steps": 4, "model": {"tie_embeddings": True, "attention_bias": True}}
    (reference,) = world(1, **job, layouts=[{}])
    layouts: dict[str, dict[str, Any]] = {
        "PP 2": {"pipeline": 2},
        "TP 2 + SP": {"tensor": 2, "sequence_parallel": True},
    }
    layouts |= {f"{name}, fused loss": {**changes, "loss": "fused"} for name, changes in layouts.items()}
    runs = dict(zip(layouts, world(2, **job, layouts=list(layouts.values())), strict=True))
    check({name: apart(run, reference) for name, run in runs.items()})


RECOMPUTED: list[dict[str, Any]] = [
    {"recompute": "selective"},
    {"recompute": "selective", "recompute_modules": ["core_attention", "norm", "activation"]},
    {"recompute": "selective", "recompute_modules": ["norm", "mlp"]},
    {"recompute": "full"},
    {"recompute": "full", "recompute_layers": 2},
]


@pytest.mark.slow
def test_recomputation_changes_nothing_and_bf16_little(world: World) -> None:
    job = {"do": "losses", "steps": 8}
    plain, *recomputed = world(1, **job, layouts=[{}, *RECOMPUTED])
    assert recomputed == [plain] * len(RECOMPUTED)
    bf16, recomputed = world(1, **job, precision="bf16", layouts=[{}, {"recompute": "full"}])
    assert recomputed == bf16
    assert max(abs(a[0] - b[0]) / b[0] for a, b in zip(bf16, plain, strict=True)) < 1e-2
