"""How many steps SFT, reward models and DPO are expected to take, and what an iteration of PPO does."""

from trainwright.compiler.cost.ppo import Iteration, iteration
from trainwright.compiler.draft import Draft, Pass
from trainwright.spec.plan import DpoStage, IterationEstimate, PpoStage, RewardStage, SftStage


def estimate_alignment(draft: Draft) -> None:
    draft.expected_steps = {
        stage.name: _steps(draft, stage)
        for stage in draft.graph
        if isinstance(stage, SftStage | RewardStage | DpoStage)
    }
    draft.iterations = {stage.name: _iterations(draft, stage) for stage in draft.graph if isinstance(stage, PpoStage)}


def _steps(draft: Draft, stage: SftStage | RewardStage | DpoStage) -> int | None:
    """None where nobody can tell how many tokens a source has."""
    tokens = 0.0
    for name in stage.data:
        expected = draft.expected_tokens[name]
        if expected is None:
            return None
        tokens += expected
    if isinstance(stage, SftStage):
        tokens /= 1 - stage.long_share
    return max(1, round(stage.epochs * (1 - draft.spec.data.held_out) * tokens / stage.tokens_per_step))


def _iterations(draft: Draft, stage: PpoStage) -> tuple[IterationEstimate, ...]:
    """Colocated, and split where the cluster has enough ranks for two of the layout."""
    ranks = draft.hardware.nodes * draft.hardware.gpus_per_node
    layout = stage.layout
    fits_twice = 2 * layout.tensor * layout.context * layout.pipeline <= ranks
    found = []
    for placement in ("colocated", "split") if fits_twice else ("colocated",):
        one = iteration(stage, draft.hardware, split=placement == "split", offload=stage.offload, cluster_ranks=ranks)
        found.append(_estimate(draft, stage, placement, one, ranks))
    return tuple(found)


def _estimate(draft: Draft, stage: PpoStage, placement: str, one: Iteration, ranks: int) -> IterationEstimate:
    duration_s = None if one.time_s is None else stage.steps * one.time_s
    price = draft.hardware.price_per_gpu_hour
    return IterationEstimate(
        placement=placement,
        chosen=placement == stage.placement_kind,
        ranks=one.ranks,
        moments=one.moments,
        waves=one.waves,
        time_s=one.time_s,
        idle=one.idle,
        duration_s=duration_s,
        cost=None if duration_s is None or price is None else duration_s * ranks / 3600 * price,
    )


ESTIMATE_ALIGNMENT = Pass(
    estimate_alignment,
    needs=("graph", "hardware", "expected_tokens", "spec.data"),
    gives=("expected_steps", "iterations"),
)
