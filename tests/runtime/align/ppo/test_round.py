"""Rounds of PPO: what they leave, the same in every layout, and the same after any death."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

World = Callable[..., Any]

PHASES = ("generate", "score", "critic", "actor", "save")
PAIRS: dict[str, dict[str, Any]] = {
    "TP 2": {"tensor": 2},
    "TP 2 + SP": {"tensor": 2, "sequence_parallel": True},
    "PP 2": {"pipeline": 2},
    "PP 2 x VPP 2": {"pipeline": 2, "virtual_pipeline": 2, "schedule": "interleaved"},
    "DP 2": {"data": 2},
    "CP 2": {"context": 2},
}


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def metrics(out: Path) -> list[dict[str, float]]:
    """Of every iteration, without what depends on the clock and on the machine."""
    found = rows(out / "metrics.jsonl")
    assert [row["step"] for row in found] == list(range(1, len(found) + 1))
    return [
        {name: value for name, value in row.items() if not name.startswith(("ppo_time/", "perf/", "memory/", "stage"))}
        for row in found
    ]


def kept(out: Path) -> dict[str, Any]:
    """All that a round leaves of its figures."""
    return {"metrics": metrics(out), **{name: rows(out / f"{name}.jsonl") for name in ("rollouts", "probes")}}


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("iter_*"))


@pytest.mark.slow
def test_a_round_leaves_both_models_its_figures_its_rollouts_and_its_probes(world: World, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (summary,) = world(1, layouts=[{}], out=[str(out)])
    assert (summary["step"], summary["interrupted"], summary["queries_left_out"]) == (3, False, 1)
    first, second, third = metrics(out)
    # While the critic warms up the actor stays what it was: the reference.
    assert first["ppo/kl_ref"] == second["ppo/kl_ref"] == 0.0 != third["ppo/kl_ref"]
    assert "ppo/policy_loss" not in first
    # The first step of an iteration sees the very log-probabilities that it compares with.
    assert second["ppo/approx_kl"] == third["ppo/clip_frac"] == 0.0
    assert second["ppo/policy_loss"] == pytest.approx(-second["ppo/adv_mean"], rel=1e-5)
    names = (
        "policy_loss clip_frac approx_kl kl_ref entropy ptx_loss value_loss explained_var reward_mean reward_std "
        "adv_mean response_len_mean truncated_pct logprob_gap_max"
    )
    assert {f"ppo/{name}" for name in names.split()} <= second.keys()
    assert {"ppo_reward_by_domain/even", "ppo_reward_by_domain/odd"} <= second.keys()
    assert max(row["ppo/logprob_gap_max"] for row in (first, second, third)) < 1e-4
    phases = [(row["phase"], row["iteration"]) for row in rows(out / "events.jsonl") if row["event"] == "ppo_phase"]
    assert [phase for phase, iteration in phases if iteration == 1] == ["generate", "score", "critic", "save"]
    assert [phase for phase, iteration in phases if iteration == 2] == list(PHASES)

    answers = rows(out / "rollouts.jsonl")
    assert [row["iteration"] for row in answers] == [1] * 8 + [2] * 8 + [3] * 8
    assert all(row["truncated"] == (row["answer_tokens"][-1] not in (2, 3)) for row in answers)
    mean = sum(row["score"] for row in answers[8:16]) / 8
    assert second["ppo/reward_mean"] == pytest.approx(mean, rel=1e-12)
    probes = rows(out / "probes.jsonl")
    asked = [(model, at) for model, at in (("start", 0), ("early", 2), ("late", 3)) for _ in range(7)]
    assert [(row["model"], row["iteration"]) for row in probes] == asked
    # Five are held out; two of those that are trained on fill up.
    assert [row["split"] for row in probes] == (["held_out"] * 5 + ["train"] * 2) * 3
    assert all(row["query"] == f"{row['split']}-{row['query_row']}" for row in probes)
    assert len({tuple(row["prompt_tokens"]) for row in probes}) == 7
    assert all(row["kl"] == 0.0 for row in probes[:7])

    assert (
        checkpoints(out / "checkpoints")
        == checkpoints(out / "critic" / "checkpoints")
        == ["iter_0000002", "iter_0000003"]
    )
    state = json.loads((out / "checkpoints" / "iter_0000003" / "train_state.json").read_text())
    assert (state["step"], state["optimizer_steps"]) == (3, 2)
    assert set(state["consumed_tokens_by_source"]) == {"questions", "code", "prose"}


@pytest.mark.slow
def test_every_layout_gives_the_figures_and_the_answers_of_one_process(world: World, tmp_path: Path) -> None:
    changes = {"steps": 2, "critic_warmup": 0, "mini_batches": 2, "epochs": 2, "every_steps": 2, "rate": 5e-4}
    one = tmp_path / "one"
    world(1, layouts=[{}], out=[str(one)], changes=changes)
    outs = [tmp_path / str(number) for number in range(len(PAIRS))]
    world(2, layouts=list(PAIRS.values()), out=list(map(str, outs)), changes=changes)
    expected = kept(one)
    for name, out in zip(PAIRS, outs, strict=True):
        found = kept(out)
        for kind in ("rollouts", "probes"):
            tokens = [[row["answer_tokens"] for row in side[kind]] for side in (found, expected)]
            assert tokens[0] == tokens[1], (name, kind)
            # The divergence is a difference of two sums of about -45.
            for key, least in (("score", 1e-5), ("kl", 45e-5), ("log_prob", 45e-5)):
                values = [[row[key] for row in side[kind]] for side in (found, expected)]
                assert values[0] == pytest.approx(values[1], rel=1e-5, abs=least), (name, kind, key)
        for row, other in zip(found["metrics"], expected["metrics"], strict=True):
            gap = row.pop("ppo/logprob_gap_max")
            assert gap < 1e-4, name
            norms = {key: row.pop(key) for key in [*row] if key.endswith("grad_norm")}
            assert norms == pytest.approx({key: other[key] for key in norms}, rel=1e-4), name
            assert row == pytest.approx({key: other[key] for key in row}, rel=1e-5, abs=2e-5), name


@pytest.mark.slow
def test_the_actor_learns_what_the_reward_model_likes_and_the_critic_what_to_expect(
    world: World, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    changes = {"steps": 30, "critic_warmup": 4, "every_steps": 30, "rate": 1e-3, "pretrain": None}
    world(1, layouts=[{}], out=[str(out)], changes={**changes, "sequences_per_step": 32})
    found = metrics(out)
    assert [row["ppo/kl_ref"] for row in found[:5]] == [0.0] * 5
    first, last = found[:5], found[-5:]
    reward, explained = (
        [[row[f"ppo/{name}"] for row in part] for part in (first, last)] for name in ("reward_mean", "explained_var")
    )
    assert min(reward[1]) > max(reward[0]) + 0.2
    assert sum(explained[1]) / 5 > 0.2 > sum(explained[0]) / 5


@pytest.mark.slow
def test_what_is_offloaded_comes_back_as_it_was(world: World, tmp_path: Path) -> None:
    whole, moved = tmp_path / "whole", tmp_path / "moved"
    changes = {"precision": "bf16", "steps": 2, "critic_warmup": 0}
    world(1, layouts=[{}], out=[str(whole)], changes=changes)
    world(1, layouts=[{}], out=[str(moved)], changes=changes, apart=True)
    assert kept(moved) == kept(whole)


@pytest.mark.slow
def test_critic_and_reward_model_on_ranks_of_their_own_give_the_same(world: World, tmp_path: Path) -> None:
    whole, two, four = (tmp_path / name for name in ("whole", "two", "four"))
    changes = {"rate": 5e-4, "every_steps": 3}
    apart = {**changes, "placement_kind": "split"}
    world(1, layouts=[{}], out=[str(whole)], changes=changes)
    (summary,) = world(2, layouts=[{}], out=[str(two)], changes=apart, stop=[["actor", 2]])
    assert (summary["interrupted"], summary["step"]) == (True, 2)
    (summary,) = world(2, layouts=[{}], out=[str(two)], changes=apart)
    assert summary["continued_from"] == 2
    assert checkpoints(two / "critic" / "checkpoints") == checkpoints(two / "checkpoints")
    assert kept(two) == kept(whole)
    world(4, layouts=[{"data": 2, "critic": {"tensor": 2}}], out=[str(four)], changes=apart)
    found, expected = (kept(out) for out in (four, whole))
    assert [row["answer_tokens"] for row in found["rollouts"]] == [row["answer_tokens"] for row in expected["rollouts"]]
    for row, other in zip(found["metrics"], expected["metrics"], strict=True):
        assert row == pytest.approx(other, rel=1e-4, abs=2e-5)


@pytest.mark.slow
def test_killed_in_any_phase_what_follows_is_equal_bit_by_bit(world: World, tmp_path: Path) -> None:
    whole, *killed = (tmp_path / name for name in ("whole", *PHASES))
    world(1, layouts=[{}], out=[str(whole)])
    for phase, out in zip(PHASES, killed, strict=True):
        assert world(1, layouts=[{}], out=[str(out)], kill=[phase, 3]) is None
        begun = rows(out / "events.jsonl")[-1]
        assert (begun["event"], begun["phase"], begun["iteration"]) == ("ppo_phase", phase, 3)
        assert checkpoints(out / "checkpoints")[-1] == "iter_0000002"
    summaries = world(1, layouts=[{}] * len(killed), out=list(map(str, killed)))
    assert [summary["continued_from"] for summary in summaries] == [2] * len(killed)
    for out in killed:
        assert kept(out) == kept(whole), out.name
        assert checkpoints(out / "critic" / "checkpoints") == checkpoints(out / "checkpoints")


@pytest.mark.slow
def test_asked_to_stop_in_any_phase_a_round_saves_and_goes_on_bit_by_bit(world: World, tmp_path: Path) -> None:
    whole, *stopped = (tmp_path / name for name in ("whole", *PHASES[:-1]))
    stops = [None, *([phase, 2] for phase in PHASES[:-1])]
    job = {"layouts": [{}] * len(stops), "out": [str(out) for out in (whole, *stopped)], "changes": {"every_steps": 3}}
    _, *summaries = world(1, **job, stop=stops)
    assert all(summary["interrupted"] for summary in summaries)
    # What has begun to learn is finished, what has not is dropped.
    assert [summary["step"] for summary in summaries] == [1, 1, 2, 2]
    for out, summary in zip(stopped, summaries, strict=True):
        assert checkpoints(out / "checkpoints") == [f"iter_{summary['step']:07d}"]
    summaries = world(1, **job)
    assert not any(summary["interrupted"] for summary in summaries)
    for out in stopped:
        assert kept(out) == kept(whole), out.name
