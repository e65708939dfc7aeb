"""The reward stage on one process: what it starts from, what it leaves behind, how it goes on, and its gate."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from msgspec import structs
from tests.compiler.support import compile_fragment
from tests.runtime.align.reward import toy
from torch import distributed
from torch._C._distributed_c10d import HashStore
from torch.distributed.checkpoint.api import CheckpointException

from trainwright.runtime.align.data.rows import write_ranked
from trainwright.runtime.align.ledger import LEDGER_FILE, LEDGER_ROWS_FILE
from trainwright.runtime.align.reward.framing import Framing
from trainwright.runtime.align.reward.stage import STATISTICS_FILE, confirmed_line, confirmed_lists, ranked_lists, train
from trainwright.runtime.data.errors import DataError
from trainwright.runtime.execute import EXIT_GATE, EXIT_OK, Documents, execute
from trainwright.runtime.store import Store
from trainwright.runtime.train import checkpoint, parallel
from trainwright.runtime.train.model import model_of
from trainwright.runtime.train.optimizer import build_optimizer, wrap
from trainwright.runtime.train.summary import PhaseError
from trainwright.spec.artefact import CHECKPOINTS, METRICS_FILE, PATCHES
from trainwright.spec.plan import CheckpointPlan, ConditionPlan, RewardStage, encode

METRICS = {
    f"rm/{name}"
    for name in (
        "loss", "ranking_loss", "penalty", "acc", "chosen_mean", "rejected_mean", "margin_mean", "saturated_pct",
    )
}  # fmt: skip


class Spelling:
    """A vocabulary of characters."""

    begin, reward = toy.BEGIN, toy.REWARD

    def encode(self, text: str) -> list[int]:
        return [ord(character) for character in text]

    def special(self, name: str) -> int:
        return 3


@pytest.fixture(scope="module")
def stage(folder: Path) -> RewardStage:
    conditions = {domain: ConditionPlan(path=f"{domain}.md", digest=None) for domain in toy.LIKED}
    for domain in conditions:
        (folder / f"{domain}.md").write_text(f"{domain[0]}\n")
    return structs.replace(
        toy.stage(epochs=4),
        conditions=conditions,
        longest=60,
        sequence_length=128,
        start_from="before",
        checkpoint=CheckpointPlan(every_steps=None, every_seconds=None, keep=1),
    )


def chunks_of(stage: RewardStage, head: Any, seed: int) -> list[Any]:
    return model_of(stage, seed=seed, head=head)


def run(
    stage: RewardStage, folder: Path, out: Path, should_stop: Callable[[], bool] = lambda: False, **inputs: Path
) -> dict[str, Any]:
    distributed.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    out.mkdir(exist_ok=True)
    try:
        summary = train(
            stage, inputs={"conversations": folder, "before": folder / "before", **inputs}, vocabulary=Spelling(),  # type: ignore[arg-type]
            root=folder, estimate=None, out=out, run_folder=out, should_stop=should_stop,
        )  # fmt: skip
    except BaseException:
        parallel.finalize()
        raise
    return summary.to_dict()


@pytest.fixture(scope="module")
def before(folder: Path, stage: RewardStage) -> Path:
    """The checkpoint of a language model."""
    parallel.single()
    chunks = chunks_of(stage, "language", seed=7)
    optimizer = build_optimizer(wrap(chunks, stage.layout), stage.optimizer, stage.layout, stage.precision)
    optimizer.step()
    state = checkpoint.TrainState(
        stage="before", step=1, optimizer_steps=1, consumed_tokens=0, consumed_tokens_by_source={}
    )
    saved = checkpoint.save(folder / "before" / CHECKPOINTS, chunks, optimizer, state, keep=1)
    parallel.finalize()
    return saved


def test_a_stage_leaves_a_model_its_statistics_and_a_ledger(
    folder: Path, before: Path, stage: RewardStage, tmp_path: Path
) -> None:
    short = structs.replace(stage, longest=23)
    summary = run(short, folder, tmp_path / "out")
    assert summary["step"] == summary["steps"] > 4
    rows = [json.loads(line) for line in (tmp_path / "out" / METRICS_FILE).read_text().splitlines()]
    assert set(rows[0]) >= METRICS
    assert rows[-1]["rm/acc"] > rows[0]["rm/acc"]
    statistics = json.loads((tmp_path / "out" / STATISTICS_FILE).read_text())
    assert statistics["measured_on"] == "held_out"
    assert set(statistics["by_domain"]) == set(toy.LIKED)
    assert summary["accuracy"] == statistics["accuracy"]
    parts = statistics["by_domain"].values()
    assert statistics["pairs"] == sum(part["pairs"] for part in parts)
    assert statistics["accuracy"] * statistics["pairs"] == pytest.approx(sum(p["accuracy"] * p["pairs"] for p in parts))
    bins = statistics["calibration"]["bins"]
    error = sum(part["pairs"] * abs(part["accuracy"] - part["confidence"]) for part in bins) / statistics["pairs"]
    assert statistics["calibration"]["error"] == pytest.approx(error)
    ledger = json.loads((tmp_path / "out" / LEDGER_FILE).read_text())
    told = [json.loads(line) for line in (tmp_path / "out" / LEDGER_ROWS_FILE).read_text().splitlines()]
    assert {split: part["lists"] + part["left_out"] for split, part in ledger.items()} == {"train": 60, "held_out": 20}
    assert len(told) == summary["left_out"] == sum(part["left_out"] for part in ledger.values()) > 0


def test_an_interrupted_stage_goes_on_as_if_it_had_not_been(
    folder: Path, before: Path, stage: RewardStage, tmp_path: Path
) -> None:
    asked = iter([False, False, True])
    stopped = run(stage, folder, tmp_path / "twice", lambda: next(asked))
    assert stopped["interrupted"]
    assert "accuracy" not in stopped
    twice = run(stage, folder, tmp_path / "twice")
    once = run(stage, folder, tmp_path / "once")
    assert twice["continued_from"] == 3
    names = ("accuracy", "score_mean", "loss", "consumed_tokens")
    assert [twice[name] for name in names] == [once[name] for name in names]


def test_a_gate_without_held_out_rows_is_refused_beforehand(
    folder: Path, before: Path, stage: RewardStage, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "rows")
    toy.write(tmp_path / "data", held_out=0)
    with pytest.raises(PhaseError, match="no ranked rows are held out"):
        run(structs.replace(stage, min_accuracy=0.6), tmp_path / "data", tmp_path / "gated")
    summary = run(structs.replace(stage, epochs=1), tmp_path / "data", tmp_path / "free")
    assert (summary["accuracy"], summary["measured_on"]) == (None, "train")


def test_pairs_of_earlier_rounds_are_a_source_and_a_round_without_labels_is_none(
    folder: Path, stage: RewardStage, tmp_path: Path
) -> None:
    stage = structs.replace(stage, patches=("online@1", "online@2", "online@3"))
    inputs = {name: tmp_path / name for name in stage.patches} | {"conversations": folder}
    for seed, name in ((1, "online@1"), (2, "online@3")):
        for split, count in (("train", 4), ("held_out", 1)):
            write_ranked(inputs[name], PATCHES, split, toy.lists(count, seed))
    assert len(ranked_lists(stage, inputs, "held_out", toy.framing())) == 20 + 2
    lists = ranked_lists(stage, inputs, "train", toy.framing())
    assert lists.names == ("pairs", PATCHES)
    assert [lists[number].source for number in range(len(lists))] == [0] * 60 + [1] * 8


def test_confirmed_pairs_are_trained_on_as_often_as_the_spec_says_and_looked_at_once(
    folder: Path, stage: RewardStage, tmp_path: Path
) -> None:
    stage = structs.replace(stage, patches=("online@1",), patch_repeats=3)
    inputs = {"online@1": tmp_path, "conversations": folder}
    for split, count in (("train", 4), ("held_out", 2)):
        write_ranked(tmp_path, PATCHES, split, toy.lists(count, seed=1))
    lists = ranked_lists(stage, inputs, "train", toy.framing())
    own = [lists[number] for number in range(60, len(lists))]
    assert [each.source for each in own] == [1] * 12
    assert all(np.array_equal(own[0].conversations[0], each.conversations[0]) for each in own[:3])
    assert not np.array_equal(own[0].conversations[0], own[3].conversations[0])
    assert len(ranked_lists(stage, inputs, "held_out", toy.framing())) == 20 + 2
    assert len(confirmed_lists(stage, inputs, toy.framing())) == 4


def test_repeated_pairs_outweigh_the_many_that_speak_against_them(
    folder: Path, before: Path, stage: RewardStage, tmp_path: Path
) -> None:
    trained = toy.lists(6, seed=len("train"))  # the first of `folder`'s own
    contrary = [replace(each, answers=each.answers[::-1], margin=0.0) for each in trained]
    write_ranked(tmp_path, PATCHES, "train", contrary)
    agrees = {}
    for repeats in (1, 30):
        one = structs.replace(stage, name=f"reward-{repeats}", patches=("online",), patch_repeats=repeats, epochs=2)
        summary = run(one, folder, tmp_path / one.name, online=tmp_path)
        agrees[repeats] = json.loads((tmp_path / one.name / STATISTICS_FILE).read_text())["confirmed"]["accuracy"]
        assert summary["confirmed_accuracy"] == agrees[repeats]
    assert agrees[1] < 0.8 < agrees[30]


@pytest.mark.parametrize(("accuracy", "told"), [(0.4, True), (0.5, True), (0.6, False)])
def test_a_model_that_has_not_learnt_from_confirmed_pairs_says_what_to_raise(accuracy: float, told: bool) -> None:
    said = confirmed_line({"accuracy": accuracy, "pairs": 1234})
    assert said.startswith(f"accuracy {accuracy:.3f} of 1,234 confirmed pairs")
    assert ("raise alignment.ppo.online.pair_repeats" in said) == told


def test_a_condition_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "math.md").write_bytes(b"\xff\xfe")
    for name in ("math.md", "poetry.md"):
        with pytest.raises(DataError, match=f"the condition .*{name}. cannot be read"):
            Framing.of({"math": ConditionPlan(path=name, digest=None)}, tmp_path, Spelling())  # type: ignore[arg-type]


@pytest.mark.usefixtures("alone")
def test_all_but_the_head_is_the_language_models(before: Path, stage: RewardStage) -> None:
    scoring, talking = (chunks_of(stage, head, seed=1)[0] for head in ("score", "language"))
    fresh = scoring.output_layer.weight.clone()
    checkpoint.load_weights([scoring], before, head=False)
    checkpoint.load_weights([talking], before)
    theirs = dict(talking.named_parameters())
    for name, parameter in scoring.named_parameters():
        if name != checkpoint.HEAD_WEIGHT:
            assert torch.equal(parameter, theirs[name]), name
    assert torch.equal(scoring.output_layer.weight, fresh)
    assert fresh.shape == (1, stage.model.hidden_size)
    assert 0.005 < fresh.std() < 0.05  # random, not zero
    with pytest.raises(CheckpointException, match="shape mismatch"):
        checkpoint.load_weights([scoring], before)


GATED = """
[tokenizer]
train = { spare_tokens = 10 }
[data.sources.books]
path = "books"
[data.sources.pairs]
path = "pairs.jsonl"
kind = "preference"
[data.mixtures]
base = { books = 1.0 }
[alignment.reward]
data = ["pairs"]
tokens_per_batch = "1Ki"
sequence_length = 128
gate = { min_accuracy = 0.7 }
"""


def test_a_gate_ends_the_run_with_5(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    _, compiled = compile_fragment(tmp_path, GATED)
    plan = compiled.plan
    assert plan is not None, compiled.diagnostics
    for accuracy, code in ((0.65, EXIT_GATE), (0.7, EXIT_OK)):
        run_folder = tmp_path / "runs" / f"{accuracy}"
        run_folder.mkdir(parents=True)
        store = Store(run_folder, plan)
        (run_folder / "plan.json").write_bytes(encode(plan))
        for stage in plan.stages:
            store.finish(stage, store.begin(stage), {"accuracy": accuracy} if isinstance(stage, RewardStage) else {})
        said: list[str] = []
        assert execute(plan, run_folder, documents=Documents(), say=said.append) == code, said
        assert ("accuracy on held-out pairs is 0.650, and the gate wants 0.700" in "\n".join(said)) == (
            code == EXIT_GATE
        )
