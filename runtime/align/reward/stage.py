"""The reward stage, as a worker process sees it: train on ranked answers, then look at held-out ones.

Importable without Megatron-core; `train` installs what it needs on this machine first.

    <stage>/checkpoints/    the model, with the head that gives scores
            ledger.jsonl    the lists that were left out, and why
            statistics.json accuracy, calibration, mean and spread of the scores, overall and by domain

N: lists.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec import structs

from trainwright.runtime.align.data.rows import SPLITS, RankedRows, rows_folder
from trainwright.runtime.align.reward.framing import Framing
from trainwright.runtime.align.reward.ranked import RankedLists, Schedule
from trainwright.runtime.data.vocabulary import Vocabulary
from trainwright.runtime.store import write_atomically
from trainwright.runtime.train.summary import PhaseError, PhaseSummary
from trainwright.spec.plan import Estimate, RewardStage

if TYPE_CHECKING:
    from megatron.core.models.gpt import GPTModel

STATISTICS_FILE = "statistics.json"
LEDGER_FILE = "ledger.jsonl"
PATCHES = "patches"  # what the pairs of earlier rounds are called, in their folders and in metrics


def train(
    stage: RewardStage,
    *,
    estimate: Estimate | None,
    inputs: Mapping[str, Path],
    vocabulary: Vocabulary,
    root: Path,
    out: Path,
    run_folder: Path,
    should_stop: Callable[[], bool],
) -> PhaseSummary:
    """The reward model is trained to its end and looked at, or saved and `interrupted` after `should_stop` on any rank.

    `inputs`: the folders of the stages it needs, by name; `root`: where the plan's paths begin. Every process of the
    layout calls it. Weights but for the head are those of `start_from`; the optimizer starts anew. Raises PhaseError,
    DataError, UnsupportedLayoutError.
    """
    from trainwright.runtime import host

    host.install()
    from torch import distributed

    from trainwright.runtime.align.reward.objective import RewardObjective
    from trainwright.runtime.train import parallel
    from trainwright.runtime.train.loop import run

    parallel.initialize(stage.layout, seed=stage.seed)
    framing = Framing.of(stage.conditions, root, vocabulary)
    lists = {split: ranked_lists(stage, inputs, split, framing) for split in SPLITS}
    train_lists, held_out = lists["train"], lists["held_out"]
    if distributed.get_rank() == 0:
        _write_ledger(out, lists)
    if not len(train_lists):
        raise PhaseError(f"none of the {len(train_lists.left_out):,} ranked rows fits; see {out / LEDGER_FILE}")
    if stage.min_accuracy is not None and not len(held_out):
        raise PhaseError("there are no held-out pairs, which the gate's accuracy is measured on: raise `data.held_out`")
    schedule = Schedule(train_lists, stage)
    stage = of_length(stage, schedule.steps)

    def finish(chunks: "list[GPTModel]") -> dict[str, Any]:
        found = statistics(chunks, stage, held_out if len(held_out) else train_lists)
        found = {"of": "held_out" if len(held_out) else "train", **found}
        if distributed.get_rank() == 0:
            write_atomically(out / STATISTICS_FILE, json.dumps(found, indent=2, ensure_ascii=False).encode() + b"\n")
        return {
            "accuracy": found["accuracy"] if len(held_out) else None,
            "accuracy_by_domain": {name: part["accuracy"] for name, part in found["by_domain"].items()},
            "calibration_error": found["calibration"]["error"],
            "measured_on": found["of"],
            "lists": len(train_lists),
            "left_out": sum(len(part.left_out) for part in lists.values()),
        }

    summary = run(
        stage,
        RewardObjective(stage, train_lists, schedule),
        estimate=estimate,
        start=inputs[stage.start_from] if stage.start_from is not None else None,
        out=out,
        run_folder=run_folder,
        should_stop=should_stop,
        weights_only=True,
        head="score",
        finish=finish,
    )
    # Only now: after an error the others may be waiting in a collective, and the process had better end.
    parallel.finalize()
    return summary


def ranked_lists(stage: RewardStage, inputs: Mapping[str, Path], split: str, framing: Framing) -> RankedLists:
    """The stage's own sources and the pairs of earlier rounds. A round that nobody labelled has left no rows."""
    sources = {name: [RankedRows(inputs["conversations"], name, split)] for name in stage.data}
    rounds = [inputs[name] for name in stage.patches if rows_folder(inputs[name], PATCHES, split).exists()]
    if rounds:
        sources[PATCHES] = [RankedRows(folder, PATCHES, split) for folder in rounds]
    return RankedLists(sources, framing, longest=stage.longest, row_length=stage.sequence_length)


def of_length(stage: RewardStage, steps: int) -> RewardStage:
    """The stage with as many steps as its data give, and a learning rate that decays over them."""
    return structs.replace(stage, steps=steps, learning_rate=structs.replace(stage.learning_rate, decay_steps=steps))


def statistics(chunks: "list[GPTModel]", stage: RewardStage, lists: RankedLists) -> dict[str, Any]:
    """What `statistics.json` says of the model on these lists. Every rank calls it; data ranks share the work."""
    import torch
    from megatron.core import parallel_state
    from torch import distributed

    from trainwright.runtime import host
    from trainwright.runtime.align.reward.quality import by_domain, quality
    from trainwright.runtime.align.reward.scores import score

    rank, ranks = parallel_state.get_data_parallel_rank(), parallel_state.get_data_parallel_world_size()
    own = range(rank, len(lists), ranks)
    conversations = [tokens for number in own for tokens in lists[number].conversations]
    first_N = np.cumsum(lists.answers_N) - lists.answers_N
    places = [int(first_N[number]) + place for number in own for place in range(int(lists.answers_N[number]))]
    scores = torch.zeros(int(lists.answers_N.sum()), dtype=torch.float32, device=host.device())
    found = score(chunks, conversations, row_length=stage.sequence_length)
    scores[torch.tensor(places, dtype=torch.int64, device=scores.device)] = torch.from_numpy(found).to(scores.device)
    if ranks > 1:
        distributed.all_reduce(scores, group=parallel_state.get_data_parallel_group())
    by_list = np.split(scores.cpu().numpy(), np.cumsum(lists.answers_N)[:-1])
    domains = [lists[number].domain for number in range(len(lists))]
    parts = by_domain(by_list, domains)
    return {**quality(by_list).plain(), "by_domain": {name: part.plain() for name, part in parts.items()}}


def _write_ledger(out: Path, lists: Mapping[str, RankedLists]) -> None:
    rows = [row for part in lists.values() for row in part.left_out]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_atomically(out / LEDGER_FILE, text.encode())
