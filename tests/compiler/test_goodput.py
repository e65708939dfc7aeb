"""What failures and checkpoints leave of the time: against limits, against a simulation, and in a plan."""

import math
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.compiler.support import compile_fragment
from tests.compiler.test_cost import layout, model

from trainwright.compiler.cost.goodput import best_interval_s, checkpoint_bytes, kept_share
from trainwright.compiler.passes.place_stages import model_chunks
from trainwright.spec.plan import Estimate, PhaseStage, Placement

HOUR = 3600.0


def test_without_failures_only_saves_cost() -> None:
    assert kept_share(1800.0, 60.0, 1e12, 480.0) == pytest.approx(1800 / 1860)


def test_rare_failures_cost_half_an_interval_and_a_restart() -> None:
    """1 - share is about save / interval + (interval / 2 + restart) / time between, to first order."""
    lost = 60 / 1800 + (930 + 480) / (40 * HOUR)
    assert 1 - kept_share(1800.0, 60.0, 40 * HOUR, 480.0) == pytest.approx(lost, rel=0.05)


def test_the_share_is_that_of_a_run_with_random_failures() -> None:
    interval, save, between, restart = 1.0, 0.1, 3.0, 0.3
    draw, wall, kept = random.Random(7), 0.0, 0.0
    fails = draw.expovariate(1 / between)
    while kept < 20_000:
        if fails > interval + save:
            fails -= interval + save
            wall += interval + save
            kept += interval
            continue
        wall += fails
        while (fails := draw.expovariate(1 / between)) < restart:  # a failure while it restarts
            wall += fails
        fails -= restart
        wall += restart
    assert kept / wall == pytest.approx(kept_share(interval, save, between, restart), rel=0.02)


@pytest.mark.parametrize("save", [10.0, 60.0, 600.0])
@pytest.mark.parametrize("between", [HOUR, 10 * HOUR, 1000 * HOUR])
def test_no_other_interval_keeps_more_than_the_best(save: float, between: float) -> None:
    best = best_interval_s(save, between)
    kept = kept_share(best, save, between, 480.0)
    others = [kept_share(best * factor, save, between, 480.0) for factor in (0.5, 0.8, 1.25, 2.0)]
    assert kept >= max(others)


def test_the_best_interval_is_youngs_where_saves_are_quick() -> None:
    assert best_interval_s(1.0, 100 * HOUR) == pytest.approx(math.sqrt(2 * 100 * HOUR), rel=0.01)


def test_a_run_that_gets_nowhere_keeps_next_to_nothing_of_its_time() -> None:
    assert 0 < kept_share(30 * 24 * HOUR, 60.0, 60.0, 480.0) < 1e-9


def test_llama_3_kept_over_nine_tenths_of_its_time() -> None:
    """2407.21783, section 3.3.4: 419 unexpected failures of 16,384 GPUs in 54 days, effective time "higher than 90 %".

    Its saves and restarts are not stated: ten seconds and our default of eight minutes.
    """
    between = 54 * 24 * HOUR / 419
    assert between * 16_384 / HOUR == pytest.approx(50_000, rel=0.02)  # our default
    assert 0.9 < kept_share(best_interval_s(10.0, between), 10.0, between, 480.0) < 0.95


# --- in a plan -------------------------------------------------------------------------------------------------------

CLUSTER = '[cluster]\nnodes = 2\ngpus_per_node = 4\ngpu = "a100-80gb"\nprice_per_gpu_hour = 2.0\n'


def estimated(folder: Path, cluster: str = CLUSTER, *sets: str) -> tuple[PhaseStage, Estimate]:
    _, compiled = compile_fragment(folder, f'{cluster}\n[run]\nname = "base"\nprecision = "bf16"\n', *sets)
    assert compiled.plan is not None, compiled.diagnostics
    stage = compiled.plan.stage("short")
    assert isinstance(stage, PhaseStage)
    return stage, compiled.plan.estimates[0]


def figures(estimate: Estimate) -> Any:
    assert estimate.goodput is not None
    return estimate.goodput


def test_time_energy_and_money_of_a_phase(tmp_path: Path) -> None:
    stage, estimate = estimated(tmp_path)
    step, kept = estimate.step, figures(estimate)
    assert step is not None
    duration = estimate.duration_s or 0.0
    assert duration == pytest.approx(stage.steps * step.time_s / kept.share)
    assert (estimate.duration_low_s or 0.0) <= duration <= (estimate.duration_high_s or 0.0)
    hours = duration * 8 / 3600
    assert estimate.gpu_hours == pytest.approx(hours)
    assert estimate.cost == pytest.approx(hours * 2.0)
    assert estimate.energy_kwh == pytest.approx(hours * 0.4 * 1.1)  # 400 W, and the default PUE
    _, doubled = estimated(tmp_path, CLUSTER, "cluster.pue=2.2")
    assert doubled.energy_kwh == pytest.approx(2 * (estimate.energy_kwh or 0.0))


def test_failures_come_in_step_with_the_devices(tmp_path: Path) -> None:
    stage, estimate = estimated(tmp_path, CLUSTER, 'cluster.failures.mean_time_between="8000 gpu-hours"')
    kept = figures(estimate)
    assert kept.between_failures_s == pytest.approx(1000 * HOUR)
    assert kept.failures == pytest.approx((estimate.duration_s or 0.0) / (1000 * HOUR))
    assert stage.layout.world_size == 8


def test_an_interval_of_steps_takes_their_time_and_none_is_longer_than_the_phase(tmp_path: Path) -> None:
    stage, estimate = estimated(tmp_path, CLUSTER, 'run.checkpoint.every="2 steps"')
    assert estimate.step is not None
    assert figures(estimate).checkpoint_interval_s == pytest.approx(2 * estimate.step.time_s)
    _, estimate = estimated(tmp_path, CLUSTER, 'run.checkpoint.every="1d"')
    assert estimate.step is not None
    assert figures(estimate).checkpoint_interval_s == pytest.approx(stage.steps * estimate.step.time_s)


def test_the_slowest_of_nodes_and_storage_sets_the_time_of_a_save(tmp_path: Path) -> None:
    _, estimate = estimated(tmp_path)
    size = figures(estimate).checkpoint_bytes
    assert figures(estimate).save_s == pytest.approx(size / 2e9)  # one rank of pure data parallelism writes it all
    _, estimate = estimated(tmp_path, CLUSTER, 'cluster.storage.total="1GB/s"')
    assert figures(estimate).save_s == pytest.approx(size / 1e9)


@pytest.mark.parametrize(("precision", "per_parameter"), [("bf16", 14), ("fp32", 12)])
def test_ranks_that_write_are_those_first_in_their_data_group(
    tmp_path: Path, precision: str, per_parameter: int
) -> None:
    """Tensor 2, pipeline 2, data 2 on nodes of 4: each pipeline rank has its own node."""
    stage, _ = estimated(tmp_path)
    sizes = model(layers=4, hidden_size=64, heads=4, kv_heads=2, ffn_size=128, vocab_size=512)
    axes = layout(tensor=2, pipeline=2, data=2)
    chunks = model_chunks(sizes, axes)
    placed = msgspec.structs.replace(
        stage,
        model=sizes,
        layout=axes,
        precision=precision,
        placement=Placement(nodes=2, ranks_per_node=4, chunks=chunks),
    )
    written = checkpoint_bytes(placed)
    assert set(written) == {0, 1}
    parameters = sum(written.values()) / per_parameter
    norms = (4 * 2 + 1) * 64  # on both tensor ranks
    assert parameters - norms == 4 * (64 * 64 * 3 + 3 * 64 * 128) + 2 * 512 * 64 + norms
