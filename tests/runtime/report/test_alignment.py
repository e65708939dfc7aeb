"""What is told of alignment: the facts that are read, their place in the plan's comparison, and the page."""

import json
import re
from collections import Counter
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.page import Page
from tests.runtime.report import aligned
from tests.runtime.report.aligned import ITERATIONS, STEPS, lines

from trainwright.runtime.align.data.fit import FitLedger
from trainwright.runtime.align.online.exploits import Exploit as WrittenExploit
from trainwright.runtime.align.reward.quality import quality
from trainwright.runtime.report.alignment_charts import reward_over_kl
from trainwright.runtime.report.alignment_facts import Exploit, Statistics, TalkRows
from trainwright.runtime.report.facts import Curve
from trainwright.runtime.report.gather import gather
from trainwright.runtime.report.plain import plain
from trainwright.runtime.report.ppo_facts import QUERIES
from trainwright.runtime.report.write import write_report

HOSTILE = "</pre><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7*7 }}"


def page(run) -> tuple[str, Page]:
    text = write_report(run.folder).read_text(encoding="utf-8")
    return text, Page(text)


def figures(run) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["stage"], row["figure"]): row for row in plain(gather(run.folder))["planned_beside_measured"]}


def test_every_stage_of_alignment_is_read(aligned_run) -> None:
    facts = gather(aligned_run.folder)
    found = facts.alignment
    assert facts.broken == ()
    assert {facts.stage(stage.name).state for stage in facts.stages} == {"done"}
    assert found.conversations["talk"].skipped == {"empty turn": 2, "not JSON": 1}
    assert found.sft[0].held_out_loss == 1.2345
    assert found.sft[0].ledger.train.sources["talk"].lost_trained_tokens == 55
    assert [reward.corrections for reward in found.reward] == [0, 14]
    assert [reward.statistics.accuracy for reward in found.reward if reward.statistics] == [0.7, 0.9]
    assert [reward.passed for reward in found.reward] == [True, True]
    assert [online.found.agreement for online in found.online] == [0.75, None]
    assert found.dpo[0].accuracy == 0.8125


def test_plain_data_has_the_figures_of_alignment_and_not_the_answers(aligned_run) -> None:
    data = json.loads(json.dumps(plain(gather(aligned_run.folder))))
    assert data["alignment"]["online"][0]["found"]["agreement"] == 0.75
    assert data["alignment"]["reward"][1]["statistics"]["by_domain"]["long"]["accuracy"] == 1.0
    assert next(curve["last"] for curve in data["curves"] if curve["stage"] == "ppo@1")["ppo/response_len_mean"] == 40.0
    assert "says" not in json.dumps(data["alignment"]["ppo"])
    assert "side_by_side" not in data["alignment"]


def test_what_stages_write_is_what_is_read() -> None:
    fits = FitLedger(used=3, split=1, pieces=2, reasons=Counter({"an exchange is longer than a row": 1}))
    assert msgspec.convert(fits.plain(), TalkRows).pieces == 2
    found = quality([np.array([1.0, 0.5], dtype=np.float32), np.array([0.0, 2.0], dtype=np.float32)])
    read = msgspec.convert(
        {"measured_on": "held_out", **found.plain(), "by_domain": {"brief": found.plain()}}, Statistics
    )
    assert (read.accuracy, read.by_domain["brief"].calibration.bins[0].pairs) == (0.5, 1)
    exploit = WrittenExploit("word", "`sure` spread", 0.0, 1.0, "sure")
    assert msgspec.convert(exploit.plain(), Exploit).says == "`sure` spread"


def test_a_stage_without_a_training_loss_has_a_curve(aligned_run) -> None:
    facts = gather(aligned_run.folder)
    assert facts.curve("ppo@1").steps == ITERATIONS
    assert facts.curve("ppo@1").values("train/loss") == []
    assert facts.stage("ppo@1").note == ""


def test_the_best_and_the_worst_of_the_newest_iteration_are_kept(aligned_run) -> None:
    ppo = gather(aligned_run.folder).alignment.ppo[0]
    assert [row.query for row in ppo.newest] == ["q7", "q6", "q1", "q0"]
    assert {row.iteration for row in ppo.newest} == {2}
    assert ppo.of == 8


def test_queries_side_by_side_take_domains_in_turn_and_every_model_of_every_round(aligned_run) -> None:
    shown = gather(aligned_run.folder).alignment.side_by_side
    assert [asked.query for asked in shown] == ["q0", "q6", "q1", "q7", "q2", "q3"]
    assert [(answer.stage, answer.model) for answer in shown[0].answers] == [
        (stage, model) for stage in ("ppo@1", "ppo@2") for model in ("start", "early", "late")
    ]
    assert shown[1].answers[5].text == "late 2 says 6"


def test_an_iteration_is_compared_phase_by_phase_where_the_actor_learns(aligned_run) -> None:
    rows = figures(aligned_run)
    assert (rows["ppo@1", "iterations"]["planned"], rows["ppo@1", "iterations"]["measured"]) == (20, 20)
    assert rows["ppo@1", "iteration time"]["planned"] == pytest.approx(1400.0)
    assert rows["ppo@1", "iteration time"]["measured"] == pytest.approx(700.0)  # without saving
    assert rows["ppo@1", "iteration time"]["inside"] is True
    for phase, time_ms in aligned.PHASES_MS.items():
        assert rows["ppo@1", f"in it: {phase}"]["planned"] == pytest.approx(2 * time_ms)
        assert rows["ppo@1", f"in it: {phase}"]["measured"] == time_ms
    assert rows["ppo@1", "memory a rank"]["planned"] == 49_893_120
    assert rows["ppo@2", "iteration time"]["planned"] is None
    assert ("ppo@1", "TFLOP/s a device") not in rows


def test_while_the_critic_learns_alone_there_is_an_iteration_time_too(aligned_run) -> None:
    lines(aligned_run, "ppo@1", [aligned.iteration(step, 1, learns=False) for step in (1, 2)])
    rows = figures(aligned_run)
    assert rows["ppo@1", "iteration time"]["measured"] == pytest.approx(580.0)
    assert rows["ppo@1", "in it: actor"]["measured"] is None


def test_steps_that_the_plan_leaves_open_are_those_that_there_were(aligned_run) -> None:
    rows, steps = figures(aligned_run), STEPS["reward@1"]
    assert (rows["reward@1", "steps"]["planned"], rows["reward@1", "steps"]["measured"]) == (None, steps)
    assert rows["reward@1", "tokens"]["planned"] is None
    assert rows["reward@1", "time of all steps"]["planned"] == pytest.approx(0.2 * steps)
    assert rows["reward@1", "time of all steps"]["measured"] == pytest.approx(0.1 * steps)
    model = aligned_run.plan.stage("reward@1").model
    assert rows["reward@1", "parameters"]["planned"] == model.parameters - 512 * 64 + 64  # a vector for a matrix


def test_a_gate_that_says_no_is_a_failure_though_the_stage_is_done(aligned_run) -> None:
    statistics = json.loads((aligned_run.path("reward@2") / "statistics.json").read_text())
    aligned_run.write("reward@2", "statistics.json", {**statistics, "accuracy": 0.55})
    aligned_run.event("run_started", 200)
    aligned_run.event("stage_failed", 201, level="error", stage="reward@2", error="accuracy 0.55, the gate wants 0.6")
    aligned_run.event("run_ended", 202, exit_code=5)
    facts = gather(aligned_run.folder)
    assert (facts.state, facts.stage("reward@2").state, facts.alignment.reward[1].passed) == ("failed", "failed", False)
    _, parsed = page(aligned_run)
    assert "✗ not passed at 0.600" in parsed.text


def test_accuracy_on_what_it_was_trained_on_passes_no_gate(aligned_run) -> None:
    statistics = json.loads((aligned_run.path("reward@1") / "statistics.json").read_text())
    aligned_run.write("reward@1", "statistics.json", {**statistics, "measured_on": "train"})
    assert gather(aligned_run.folder).alignment.reward[0].passed is None
    _, parsed = page(aligned_run)
    assert "0.700 (on what it was trained on)" in parsed.text


def test_the_page_has_a_section_of_every_kind_of_stage(aligned_run) -> None:
    text, parsed = page(aligned_run)
    assert re.findall("<h2>(.*?)</h2>", text)[4:] == [
        "Samples", "Supervised fine-tuning", "Reward models", "PPO", "Online rounds", "Answers side by side",
        "Preference optimisation", "Data", "Conversations", "How to do it again", "Values nobody wrote",
    ]  # fmt: skip
    for sentence in (
        "sft: held-out loss 1.234 · reward@2: 90% of held-out pairs right · ppo@2: reward -2.00 to 1.47 at KL 1.98",
        "2 empty turn, 1 not JSON",
        "84 ranked lists with 90 pairs, and 10 lists held out; 2 did not fit.",
        "1.234 nats a token on what the assistant says",
        "1: an exchange is longer than a row",
        "brief 0.600, long 0.800",
        "✓ passed at 0.600",
        "14 (90 % right)",
        "a conversation of 99 tokens is longer than 64",
        "75.0 % of the labels",
        "word : `sure` stands in 90% of the answers",
        "late 2 says 6",
        "81.2 % of pairs right",
    ):
        assert sentence in parsed.text, sentence
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")


def test_reward_stands_against_kl_with_the_iteration_beside_each_point(aligned_run) -> None:
    _, parsed = page(aligned_run)
    plots = {own["data-unit"]: json.loads(own["data-values"] or "") for own in parsed.with_class("plot")}
    first, second = plots["nats of KL to the reference, an answer"]
    assert [first[0], second[0]] == ["ppo@1", "ppo@2"]
    assert (len(first[1]), first[1][0]) == (ITERATIONS, [0.08, -0.5, "iteration 1"])
    assert len(parsed.with_class("begin")) == len(parsed.with_class("end")) == 4  # two rounds, wide and narrow


def test_many_iterations_become_means_over_stretches_in_order() -> None:
    rows = tuple({"step": step, "ppo/kl_ref": 0.1 * step, "ppo/reward_mean": float(step)} for step in range(1, 401))
    points = reward_over_kl(Curve(stage="ppo@1", rows=rows), 60)
    assert len(points) == 58
    assert points[0] == (pytest.approx(0.4), 4.0, 7)  # iterations 1 to 7
    assert points[-1][2] == 400


def test_the_bar_of_an_iteration_is_planned_beside_measured_on_one_scale(aligned_run) -> None:
    text, _ = page(aligned_run)
    widths = [
        [float(width) for width in re.findall(r"width:([\d.]+)%", bar)]
        for bar in re.findall('<div class="stack">(.*?)</div>', text)
    ]
    planned, *measured = widths
    assert sum(planned) == pytest.approx(100.0, abs=0.1)
    assert [sum(each) for each in measured] == pytest.approx([100 * 703 / 1400] * 2, abs=0.1)  # 3 ms of saving
    assert (len(planned), len(measured[0])) == (4, 5)


def test_answers_are_data(aligned_run) -> None:
    for name in ("probes.jsonl", "rollouts.jsonl"):
        rows = [json.loads(line) for line in (aligned_run.path("ppo@1") / name).read_text().splitlines()]
        lines(aligned_run, "ppo@1", [{**row, "prompt": HOSTILE, "answer": HOSTILE} for row in rows], name)
    text, parsed = page(aligned_run)
    assert [tag for tag, _ in parsed.tags].count("script") == 1
    assert "<script>alert" not in text
    assert HOSTILE in "".join(parsed.texts)


def test_a_long_run_has_a_page_of_a_reasonable_size(aligned_run) -> None:
    for number in (1, 2):
        name = f"ppo@{number}"
        lines(aligned_run, name, [aligned.iteration(step, number, learns=True) for step in range(1, 401)])
        row = json.loads((aligned_run.path(name) / "probes.jsonl").read_text().splitlines()[0])
        answers = [{**row, "iteration": 400, "answer": "word " * 400, "query": f"q{query}"} for query in range(512)]
        lines(aligned_run, name, [{**each, "model": model} for model in ("start", "early", "late") for each in answers],
              "probes.jsonl")  # fmt: skip
        lines(aligned_run, name, 2 * answers, "rollouts.jsonl")  # more than is read of it
    facts = gather(aligned_run.folder)
    assert facts.broken == ()
    assert len(facts.alignment.side_by_side) == QUERIES
    assert len(facts.alignment.side_by_side[0].answers[0].text) < 1600
    assert 200 < facts.alignment.ppo[0].of < 1024
    assert len(write_report(aligned_run.folder).read_bytes()) < 700_000


@pytest.mark.parametrize("stage", ["conversations", "sft", "reward@1", "ppo@1", "online@1", "dpo"])
def test_a_run_that_stopped_in_alignment_has_a_page(run_to_align, stage: str) -> None:
    run_to_align.event("run_started", 0)
    run_to_align.begin(stage)
    _, parsed = page(run_to_align)
    assert "No iteration was logged yet." in parsed.text
    note = gather(run_to_align.folder).stage(stage).note
    assert note.startswith("killed: ")
    assert ("step 0, no checkpoint yet" in note) == (stage in STEPS)  # how many steps there will be nobody knows


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("conversations/ledger.json", '{"talk": 3}'),
        ("sft/ledger.json", "[]"),
        ("reward@1/statistics.json", "{}"),
        ("ppo@1/probes.jsonl", "nonsense\n"),
        ("ppo@1/rollouts.jsonl", '{"iteration": 1}\n'),
        ("online@1/exploits.json", '{"agreement": "much"}'),
    ],
)
def test_a_broken_file_of_alignment_is_told_and_the_rest_is_shown(aligned_run, name: str, text: str) -> None:
    (aligned_run.folder / "stages" / name).write_text(text)
    (sentence,) = gather(aligned_run.folder).broken
    assert name.partition("/")[2] in sentence
    assert "cannot be read" in sentence
    page(aligned_run)


def test_a_row_that_a_kill_cut_off_does_not_count(aligned_run) -> None:
    path = aligned_run.path("ppo@1") / "probes.jsonl"
    path.write_text(path.read_text()[:-9])
    facts = gather(aligned_run.folder)
    assert facts.broken == ()
    shown = {asked.query: len(asked.answers) for asked in facts.alignment.side_by_side}
    assert shown["q6"] == 6
