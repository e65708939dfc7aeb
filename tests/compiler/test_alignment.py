"""The stages of alignment: what they start from, in which order they stand, on which ranks they run."""

from pathlib import Path
from typing import Any

import pytest
from tests.compiler.support import compile_fragment

from trainwright.spec.plan import ConversationsStage, OnlineStage, Plan, PpoStage, RewardStage, SftStage

DATA = """
[data]
held_out = 0.1
[data.sources.books]
path = "books"
[data.sources.code]
path = "code.jsonl"
[data.sources.dialogues]
path = "code.jsonl"
kind = "chat"
[data.sources.pairs]
path = "code.jsonl"
kind = "preference"
[data.sources.questions]
path = "code.jsonl"
kind = "prompts"
[data.mixtures]
base = { books = 0.5, code = 0.5 }
"""
SFT = '[alignment.sft]\ndata = ["dialogues"]\n'
REWARD = '[alignment.reward]\ndata = ["pairs"]\nconditions = { code = "code.jsonl" }\n'
PPO = (
    '[alignment.ppo]\nqueries = "questions"\nrounds = 2\nmax_new_tokens = 32\nqueries_per_iteration = 24\n'
    'online = { labeller = { command = ["label"] } }\n'
)
ALL = DATA + SFT + REWARD + PPO


def plan_of(folder: Path, fragment: str, *sets: str) -> Plan:
    _, compiled = compile_fragment(folder, fragment, *sets)
    assert compiled.plan is not None, compiled.diagnostics
    return compiled.plan


def codes(folder: Path, fragment: str, *sets: str) -> list[str]:
    _, compiled = compile_fragment(folder, fragment, *sets)
    return [diagnostic.code for diagnostic in compiled.diagnostics]


def stage(plan: Plan, name: str) -> Any:
    return plan.stage(name)


def test_the_rounds_stand_one_behind_the_other(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, ALL)
    names = [each.name for each in plan.stages]
    rounds = ["sft", "reward@1", "ppo@1", "online@1", "reward@2", "ppo@2", "online@2"]
    assert [name for name in names if name in rounds] == rounds
    assert stage(plan, "reward@2").needs == ("tokenizer", "conversations", "sft", "online@1")
    assert stage(plan, "reward@2").patches == ("online@1",)
    repeated = plan_of(tmp_path, ALL, "alignment.ppo.online.pair_repeats=4")
    changed = [each.name for each in repeated.stages if each.fingerprint != plan.stage(each.name).fingerprint]
    assert changed == ["reward@2", "ppo@2", "online@2"]
    assert stage(repeated, "reward@2").patch_repeats == 4
    assert stage(plan, "ppo@2").needs == ("tokenizer", "conversations", "sft", "reward@2")


@pytest.mark.parametrize(("actor_from", "start", "critic"), [("start", "sft", None), ("previous", "ppo@1", "ppo@1")])
def test_a_later_actor_starts_anew_or_goes_on(tmp_path: Path, actor_from: str, start: str, critic: str | None) -> None:
    second = stage(plan_of(tmp_path, ALL, f"alignment.ppo.actor_from='{actor_from}'"), "ppo@2")
    assert isinstance(second, PpoStage)
    assert (second.start_from, second.critic_from, second.reference_from) == (start, critic, "sft")


def test_text_and_conversations_are_read_by_stages_of_their_own(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, ALL)
    conversations = stage(plan, "conversations")
    assert isinstance(conversations, ConversationsStage)
    assert [source.name for source in conversations.sources] == ["dialogues", "pairs", "questions"]
    assert [source.name for source in stage(plan, "ingest").sources] == ["books", "code"]
    assert stage(plan, "tokenize").sources == ("books", "code")


def test_without_sft_everything_starts_from_the_last_phase(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, DATA + REWARD)
    reward = stage(plan, "reward@1")
    assert isinstance(reward, RewardStage)
    assert (reward.start_from, reward.round) == ("short", 1)
    assert "ppo@1" not in {each.name for each in plan.stages}


def test_pairs_are_packed_into_rows_that_hold_the_longest(tmp_path: Path) -> None:
    sets = ("alignment.reward.tokens_per_batch=4096", "alignment.reward.sequence_length=512")
    reward = stage(plan_of(tmp_path, DATA + REWARD, *sets), "reward@1")
    assert (reward.longest, reward.sequence_length, reward.sequences_per_step) == (512, 1024, 4)


def test_sft_takes_the_shape_of_its_phase(tmp_path: Path) -> None:
    sft = stage(plan_of(tmp_path, DATA + SFT), "sft")
    assert isinstance(sft, SftStage)
    assert (sft.sequence_length, sft.tokens_per_step, sft.rope_base) == (128, 4096, 10_000)
    assert (sft.steps, sft.learning_rate.peak, sft.learning_rate.final) == (0, 4e-5, pytest.approx(4e-6))


def test_few_rows_leave_ranks_idle(tmp_path: Path) -> None:
    """24 answers an iteration do not go evenly to 16 ranks: 12 take two each."""
    ppo = stage(plan_of(tmp_path, "[cluster]\ngpus_per_node = 16\n" + ALL), "ppo@1")
    assert (ppo.layout.data, ppo.world_size) == (12, 12)


def test_split_models_have_ranks_of_their_own(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "[cluster]\ngpus_per_node = 16\n" + ALL, "alignment.ppo.placement='split'")
    ppo = stage(plan, "ppo@1")
    assert (ppo.layout.data, ppo.critic_layout.data, ppo.world_size) == (8, 8, 16)


def test_the_gate_does_not_make_a_result_stale(tmp_path: Path) -> None:
    fragment = DATA + REWARD
    plain = stage(plan_of(tmp_path, fragment), "reward@1")
    strict = stage(plan_of(tmp_path, fragment, "alignment.reward.gate={min_accuracy=0.9}"), "reward@1")
    assert strict.min_accuracy == 0.9
    assert plain.fingerprint == strict.fingerprint


def test_new_labels_make_the_rounds_behind_them_stale(tmp_path: Path) -> None:
    fragment = ALL.replace("online = {", 'online = { labels = "labels/*.jsonl",')
    before = plan_of(tmp_path, fragment)
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "mine.jsonl").write_text("{}\n")
    after = plan_of(tmp_path, fragment)
    online = stage(after, "online@1")
    assert isinstance(online, OnlineStage)
    assert [label.path for label in online.labels] == ["labels/mine.jsonl"]
    changed = {each.name for each in after.stages if before.stage(each.name).fingerprint != each.fingerprint}
    assert changed == {"online@1", "reward@2", "ppo@2", "online@2"}


def test_a_condition_is_known_by_its_text_whatever_folder_it_lies_in(tmp_path: Path) -> None:
    fragment = DATA + REWARD
    for folder, text in (("here", "Be brief."), ("there", "Be brief."), ("other", "Be full.")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "brief.txt").write_text(text)
    here, there, other = (
        stage(
            plan_of(tmp_path, fragment, f"alignment.reward.conditions={{brief='{folder}/brief.txt'}}"), "reward@1"
        ).fingerprint
        for folder in ("here", "there", "other")
    )
    assert here == there != other


def test_rows_are_known_by_their_text_whatever_folder_they_lie_in(tmp_path: Path) -> None:
    text = '{"prompt": "a", "chosen": "b", "rejected": "c"}\n'
    for folder, rows in (("here", text), ("there", text), ("other", text + text)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "pairs.jsonl").write_text(rows)
    here, there, other = (
        stage(
            plan_of(tmp_path, DATA + REWARD, f"data.sources.pairs.path='{folder}/pairs.jsonl'"), "conversations"
        ).fingerprint
        for folder in ("here", "there", "other")
    )
    assert here == there != other


def test_what_the_runtime_cannot_do_blocks_the_run_beforehand(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, ALL, "alignment.reward.topology={zero=3}")
    assert [notice.key for notice in plan.notices if notice.blocks] == ["alignment.reward.topology.zero"]


@pytest.mark.parametrize(
    ("sets", "code"),
    [
        (("alignment.ppo.from='reward'",), "TW233"),
        (("alignment.sft.from='ppo'",), "TW233"),
        (("evaluation=[{kind='samples', of=['reward'], prompts=['?']}]",), "TW254"),
        (("alignment.reward.gate={min_accuracy=0.7}", "data.held_out=0"), "TW253"),
        (("alignment.sft.tokens_per_step=1000", "alignment.sft.sequence_length=300"), "TW241"),
        (("alignment.sft.topology={tensor=3}", "cluster.gpus_per_node=3"), "TW302"),
        (("alignment.reward.topology={pipeline=3}", "cluster.gpus_per_node=3"), "TW305"),
        (("alignment.ppo.topology={data=5}", "cluster.gpus_per_node=8"), "TW308"),
        (("alignment.ppo.mini_batches=7",), "TW308"),
        (("alignment.ppo.max_new_tokens=128",), "TW263"),
        (("alignment.sft.tokens_per_step=1000",), "TW241"),
        (("alignment.sft.learning_rate.warmup='5min'",), "TW246"),
        (("alignment.reward.learning_rate.final=1",), "TW245"),
        (("topology={pipeline=2, virtual_pipeline=2}", "cluster.gpus_per_node=2"), "TW310"),
        (("alignment.ppo.topology={tensor=2}",), "TW301"),
        (("alignment.ppo.placement='split'",), "TW301"),
        (("data.mixtures.base.dialogues=1",), "TW260"),
        (("data.sources.dialogues.text_key='content'",), "TW227"),
        (("data.sources.pairs.recipe='clean'",), "TW227"),
        (("data.sources.books.join_size='1MiB'",), "TW227"),
    ],
)
def test_mistakes_are_told_before_anything_runs(tmp_path: Path, sets: tuple[str, ...], code: str) -> None:
    assert code in codes(tmp_path, ALL, *sets)
