"""The stages of alignment of a made-up run, and what they leave in its folder: nothing in it was ever trained."""

import json
import math
from typing import TYPE_CHECKING, Any

from trainwright.spec.plan import (
    AnyStage,
    CheckpointPlan,
    ConversationsStage,
    DpoStage,
    Estimate,
    IterationEstimate,
    Layout,
    LearningRatePlan,
    ModelPlan,
    Moment,
    OnlineStage,
    OptimizerPlan,
    Placement,
    PpoStage,
    RankMemory,
    RewardStage,
    SftStage,
    StepTime,
)

if TYPE_CHECKING:
    from tests.runtime.report.conftest import MadeUpRun

ITERATIONS, WARM_UP = 20, 4
STEPS = {"sft": 30, "reward@1": 12, "reward@2": 14, "dpo": 10}  # as the data had it; the plan does not know
PHASES_MS = {"generate": 400.0, "score": 100.0, "critic": 80.0, "actor": 120.0}


def _training(model: ModelPlan, layout: Layout, start: str | None, steps: int = 0) -> dict[str, Any]:
    return {
        "model": model, "start_from": start, "seed": 1024, "precision": "fp32", "steps": steps,
        "tokens_per_step": 1024, "sequence_length": 128, "sequences_per_step": 8, "rope_base": 50_000.0,
        "learning_rate": LearningRatePlan(
            peak=4e-5, final=4e-6, warmup_steps=0, decay="cosine", decay_steps=steps, offset=0
        ),
        "optimizer": OptimizerPlan(kind="adamw", betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, clip=1.0),
        "attention": "auto", "layout": layout, "placement": Placement(nodes=1, ranks_per_node=2, chunks=()),
        "checkpoint": CheckpointPlan(every_steps=50, every_seconds=None, keep=2), "log_every": 10,
    }  # fmt: skip


def stages(model: ModelPlan, layout: Layout, start: str) -> list[AnyStage]:
    """Conversations, SFT, two rounds with their reward models, and DPO."""
    needs = ("tokenizer", "conversations")
    found: list[AnyStage] = [
        ConversationsStage(
            name="conversations", needs=("tokenizer",), sources=(), vocab_size=512, held_out=0.1, code_newline=True,
            bad_rows=0.1, seed=1024, workers=0,
        ),
        SftStage(
            name="sft", needs=(*needs, start), **_training(model, layout, start), data=("talk",), epochs=1,
            long_mixture={"novels": 1.0}, long_share=0.3,
        ),
    ]  # fmt: skip
    for number in (1, 2):
        patches = ("online@1",) if number == 2 else ()
        before = "ppo@1" if number == 2 else None
        found += [
            RewardStage(
                name=f"reward@{number}", needs=(*needs, "sft", *patches), **_training(model, layout, "sft"),
                round=number, data=("pairs",), patches=patches, patch_repeats=1, epochs=1, longest=64,
                conditions={}, focal_gamma=2.0, barrier_bound=5.0, barrier_weight=0.02, min_accuracy=0.6,
            ),
            PpoStage(
                name=f"ppo@{number}", needs=(*needs, "sft", f"reward@{number}"),
                **_training(model, layout, before or "sft", ITERATIONS), round=number, reference_from="sft",
                reward_from=f"reward@{number}", critic_from=before, queries="questions", conditions={},
                max_new_tokens=32, probes=8, temperature=1.0, top_p=0.9, kl=0.01, discount=1.0, gae_lambda=0.99,
                clip=0.2, value_clip=None, normalise_advantages=False, mini_batches=2, epochs=1,
                critic_warmup=WARM_UP if number == 1 else 0, critic_learning_rate=5e-6, pretrain=None,
                placement_kind="colocated", offload=False, critic_layout=layout,
            ),
            OnlineStage(
                name=f"online@{number}", needs=(*needs, f"ppo@{number}", f"reward@{number}"), round=number,
                ppo=f"ppo@{number}", reward=f"reward@{number}", fast_pairs=20, slow_pairs=20, labels=(), labeller=None,
                barrier_bound=5.0, held_out=0.1, seed=1024,
            ),
        ]  # fmt: skip
    return [
        *found,
        DpoStage(
            name="dpo", needs=(*needs, "sft"), **_training(model, layout, "sft"), data=("pairs",), epochs=1, longest=64,
            beta=0.1,
        ),
    ]  # fmt: skip


def estimates(memory: RankMemory) -> list[Estimate]:
    """Of the first round, and of a reward model whose number of steps nobody expected."""
    moments = tuple(
        Moment(name=name, time_s=time_ms / 500, ranks=2, idle=0.0, memory=memory) for name, time_ms in PHASES_MS.items()
    )
    time_s = sum(PHASES_MS.values()) / 500
    one = IterationEstimate(
        placement="colocated", chosen=True, ranks=2, moments=moments, waves=1, time_s=time_s, idle=0.1,
        duration_s=time_s * ITERATIONS, cost=None,
    )  # fmt: skip
    other = IterationEstimate(
        placement="split", chosen=False, ranks=2, moments=moments, waves=1, time_s=99.0, idle=0.5, duration_s=1980.0,
        cost=None,
    )  # fmt: skip
    return [_estimate("ppo@1", memory, time_s, (one, other)), _estimate("reward@1", memory, 0.2, ())]


def _estimate(stage: str, memory: RankMemory, time_s: float, iterations: tuple[IterationEstimate, ...]) -> Estimate:
    step = StepTime(
        time_s=time_s, low_s=time_s / 2, high_s=time_s * 2, parts={"matmul": time_s}, chunks=(), transfer_s=0.0,
        bubble=0.0,
    )  # fmt: skip
    return Estimate(
        stage=stage, model_flops_per_token=1.2e6, hardware_flops_per_token=1.2e6, memory=(memory,),
        capacity_bytes=None, step=step, tokens_per_s=5120.0, mfu=None, goodput=None, duration_s=None,
        duration_low_s=None, duration_high_s=None, gpu_hours=None, energy_kwh=None, cost=None, cost_low=None,
        cost_high=None, iterations=iterations,
    )  # fmt: skip


def write_alignment(run: "MadeUpRun") -> None:
    """Every stage of alignment is done."""
    _conversations(run)
    _sft(run)
    for number in (1, 2):
        _reward(run, number)
        _ppo(run, number)
        _online(run, number)
    _dpo(run)


def _conversations(run: "MadeUpRun") -> None:
    run.begin("conversations")
    counts = {"rows": 100, "used": 84, "held_out": 10, "duplicates": 3, "tokens": 5000}
    ledger = {
        "talk": {"kind": "chat", "skipped": {"empty turn": 2, "not JSON": 1}, "trained_tokens": 2000, **counts},
        "pairs": {"kind": "preference", "skipped": {}, **counts, "rows": 97},
    }
    run.write("conversations", "ledger.json", ledger)
    run.finish("conversations", 1.0, sources=ledger)


def _sft(run: "MadeUpRun") -> None:
    rows = {"used": 80, "split": 3, "pieces": 7, "dropped": 1, "lost_trained_tokens": 55}
    talk = {"sources": {"talk": {**rows, "reasons": {"an exchange is longer than a row": 1}}}}
    train = {**talk, "rows": 240, "tokens": 29_000, "padding_pct": 5.5, "long_rows": 70, "long_share": 0.3}
    run.begin("sft")
    run.write("sft", "ledger.json", {"train": train, "held_out": talk})
    lines(run, "sft", [_step(step, 3.0) | {"train_loss_by_source/talk": 3.0} for step in range(1, STEPS["sft"] + 1)])
    run.finish("sft", 3.0, steps=STEPS["sft"], held_out_loss=1.2345, held_out_loss_by_source={"talk": 1.2345})


def _reward(run: "MadeUpRun", number: int) -> None:
    name, steps = f"reward@{number}", STEPS[f"reward@{number}"]
    part = {"lists": 84, "answers": 180, "left_out": 2}
    run.begin(name)
    run.write(name, "ledger.json", {"train": part, "held_out": {"lists": 10, "answers": 20, "left_out": 0}})
    lines(run, name, [{"source": "pairs", "why": "a conversation of 99 tokens is longer than 64"}], "ledger.jsonl")
    own = {"lists": 10, "pairs": 10, "margin_mean": 0.5, "mean": 0.1, "std": 1.5,
           "calibration": {"error": 0.07, "bins": [
               {"low": 0.5, "high": 0.55, "pairs": 4, "confidence": 0.52, "accuracy": 0.5},
               {"low": 0.9, "high": 0.95, "pairs": 6, "confidence": 0.93, "accuracy": 1.0},
           ]}}  # fmt: skip
    accuracy = 0.5 + 0.2 * number
    domains = {"brief": {**own, "accuracy": accuracy - 0.1}, "long": {**own, "accuracy": accuracy + 0.1}}
    statistics = {"measured_on": "held_out", **own, "accuracy": accuracy, "by_domain": domains}
    if number > 1:
        statistics["confirmed"] = {**own, "accuracy": 0.9}
    run.write(name, "statistics.json", statistics)
    metrics = [
        _step(step, 0.7) | {
            "rm/loss": 0.7 / step, "rm/ranking_loss": 0.76 / step, "rm/acc": 0.5 + step / 100, "rm/chosen_mean": 0.5,
            "rm/rejected_mean": -0.5, "rm/saturated_pct": 1.0,
        }
        for step in range(1, steps + 1)
    ]  # fmt: skip
    lines(run, name, metrics)
    run.finish(name, 3.0, steps=steps, accuracy=accuracy)


def _ppo(run: "MadeUpRun", number: int) -> None:
    name, warm_up = f"ppo@{number}", WARM_UP if number == 1 else 0
    run.begin(name)
    lines(run, name, [iteration(step, number, learns=step > warm_up) for step in range(1, ITERATIONS + 1)])
    answers = [_answer(query, step, f"answer {query} of iteration {step}") for step in (1, 2) for query in range(8)]
    lines(run, name, answers, "rollouts.jsonl")
    probes = [
        _answer(query, at, f"{model} {number} says {query}") | {"model": model, "split": "held_out"}
        for model, at in (("start", 0), ("early", 5), ("late", ITERATIONS))
        for query in range(8)
    ]
    lines(run, name, probes, "probes.jsonl")
    run.finish(name, 14.0, steps=ITERATIONS, reward_mean=1.0)


def iteration(step: int, number: int, *, learns: bool) -> dict[str, Any]:
    """An iteration's metrics; there is no loss of training among them."""
    times = {f"ppo_time/{phase}_ms": time_ms for phase, time_ms in PHASES_MS.items() if learns or phase != "actor"}
    return {
        "step": step, "ppo/kl_ref": -0.02 + 0.1 * step, "ppo/reward_mean": math.sqrt(step) - 1.5 * number,
        "ppo/reward_std": 0.8,
        "ppo/entropy": 2.0, "ppo/adv_mean": 0.0, "ppo/explained_var": 0.3, "ppo/response_len_mean": 20.0 + step,
        "ppo/truncated_pct": 3.0, "ppo/value_loss": 0.5, "ppo_reward_by_domain/brief": 0.5,
        "ppo_reward_by_domain/long": 1.5, "train/consumed_tokens": 900 * step, "perf/step_time_ms": 700.0,
        "perf/tgs": 500.0, "memory/max_active_gb": 0.1, **times,
        **({"ppo/clip_frac": 0.1, "ppo/ptx_loss": 2.5, "ppo/policy_loss": 0.01} if learns else {}),
        **({"ppo_time/save_ms": 60.0} if step % 10 == 1 and step > 1 else {}),
    }  # fmt: skip


def _answer(query: int, at: int, text: str) -> dict[str, Any]:
    return {
        "iteration": at, "query": f"q{query}", "query_row": query, "domain": "brief" if query < 6 else "long",
        "prompt": f"user\nquestion {query}", "answer": text, "answer_tokens": [1, 2], "score": query / 4,
        "kl": 0.5, "length": 2, "truncated": query == 3, "log_prob": -3.0, "reference_log_prob": -3.5,
    }  # fmt: skip


def _online(run: "MadeUpRun", number: int) -> None:
    name = f"online@{number}"
    figures = {"score": 0.1, "kl": 0.0, "length": 20.0, "repeated": 0.02, "truncated": 0.125}
    found = {
        "exploits": [{"kind": "word", "says": "`sure` stands in 90% of the answers, after 5%", "before": 0.05,
                      "after": 0.9, "word": "sure"}] if number == 1 else [],
        "agreement": 0.75 if number == 1 else None,
        "models": {"start": figures, "early": figures, "late": {**figures, "score": 2.5, "repeated": 0.3}},
    }  # fmt: skip
    run.begin(name)
    run.write(name, "exploits.json", found)
    run.finish(name, 1.0, candidates=40, labels=16 if number == 1 else 0, pairs=14 if number == 1 else 0)


def _dpo(run: "MadeUpRun") -> None:
    run.begin("dpo")
    part = {"lists": 84, "pairs": 90, "tokens": 4000, "left_out": 1}
    run.write("dpo", "ledger.json", {"train": part, "held_out": {**part, "lists": 10}})
    own = {"dpo/acc": 0.7, "dpo/margin_mean": 0.3, "dpo/chosen_reward": 0.1, "dpo/rejected_reward": -0.2}
    lines(run, "dpo", [_step(step, 0.69) | {"dpo/loss": 0.69 / step, **own} for step in range(1, STEPS["dpo"] + 1)])
    run.finish("dpo", 2.0, steps=STEPS["dpo"], accuracy=0.8125, held_out_loss=0.5)


def _step(step: int, loss: float) -> dict[str, Any]:
    return {
        "step": step, "train/loss": loss / step, "train/consumed_tokens": 1000 * step, "perf/step_time_ms": 100.0,
        "perf/tgs": 5000.0, "perf/tflops_per_gpu": 0.01, "memory/max_active_gb": 0.1,
    }  # fmt: skip


def lines(run: "MadeUpRun", stage: str, rows: list[dict[str, Any]], name: str = "metrics.jsonl") -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (run.path(stage) / name).write_text(text, encoding="utf-8")
