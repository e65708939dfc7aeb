"""What an iteration of PPO is expected to take, moment by moment, under both placements of its models."""

from pathlib import Path

import pytest
from tests.compiler.test_alignment import ALL, plan_of

from trainwright.spec.plan import Estimate, IterationEstimate, Plan

CLUSTER = """
[cluster]
gpus_per_node = 8
gpu = "h100"
price_per_gpu_hour = 2.0
"""
PHASE_TOKENS = "alignment.ppo.queries_per_iteration=64"


def estimate(plan: Plan, stage: str = "ppo@1") -> Estimate:
    return next(each for each in plan.estimates if each.stage == stage)


def placements(folder: Path, *sets: str) -> dict[str, IterationEstimate]:
    plan = plan_of(folder, CLUSTER + ALL, "run.precision='bf16'", PHASE_TOKENS, *sets)
    return {each.placement: each for each in estimate(plan).iterations}


def test_both_placements_are_told_and_one_is_chosen(tmp_path: Path) -> None:
    both = placements(tmp_path)
    assert {name: each.chosen for name, each in both.items()} == {"colocated": True, "split": False}
    assert [moment.name for moment in both["split"].moments] == ["generate", "score", "critic", "actor"]


def test_colocated_moments_follow_each_other_and_split_ones_overlap(tmp_path: Path) -> None:
    both = placements(tmp_path)
    times = {name: {moment.name: moment.time_s or 0 for moment in each.moments} for name, each in both.items()}
    assert both["colocated"].time_s == pytest.approx(sum(times["colocated"].values()))
    split = times["split"]
    together = split["generate"] + split["score"] + max(split["critic"], split["actor"])
    assert both["split"].time_s == pytest.approx(together)


def test_the_ranks_of_the_critic_wait_while_answers_are_generated(tmp_path: Path) -> None:
    both = placements(tmp_path)
    idle = {name: {moment.name: moment.idle or 0 for moment in each.moments} for name, each in both.items()}
    assert idle["colocated"]["generate"] == pytest.approx(0.0)
    assert idle["split"]["generate"] == pytest.approx(0.5)


def test_what_is_not_offloaded_stays_on_the_card(tmp_path: Path) -> None:
    lean, full = (
        placements(tmp_path, f"alignment.ppo.offload={offload}")["colocated"].moments[0].memory
        for offload in ("true", "false")
    )
    assert lean.optimizer_bytes == lean.gradients_bytes == 0
    assert full.optimizer_bytes > 0
    assert 3.5 * lean.parameters_bytes < full.parameters_bytes < 4 * lean.parameters_bytes  # two of them lack a head


def test_longer_answers_take_longer_and_more_memory(tmp_path: Path) -> None:
    short, long = (
        placements(tmp_path, "alignment.ppo.sequence_length=4096", f"alignment.ppo.max_new_tokens={tokens}")[
            "colocated"
        ].moments[0]
        for tokens in (256, 512)
    )
    assert (long.time_s or 0) > 1.8 * (short.time_s or 0)
    assert long.memory.activations["keys and values"] == short.memory.activations["keys and values"]


def test_steps_follow_from_the_tokens_that_a_source_states(tmp_path: Path) -> None:
    stated = ALL.replace('kind = "chat"', 'kind = "chat"\ntokens = 4_096_000')
    plan = plan_of(tmp_path, CLUSTER + stated, "run.precision='bf16'")
    assert estimate(plan, "sft").steps == 900  # a tenth is held out, 4,096 tokens a step
    assert estimate(plan, "sft").duration_s is not None


def test_steps_of_remote_text_are_not_known(tmp_path: Path) -> None:
    remote = ALL.replace('path = "code.jsonl"\nkind = "chat"', 'path = "s3://corpus/chat.jsonl"\nkind = "chat"')
    plan = plan_of(tmp_path, CLUSTER + remote, "run.precision='bf16'")
    found = estimate(plan, "sft")
    assert (found.steps, found.duration_s, found.is_open) == (None, None, True)
