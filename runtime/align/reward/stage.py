"""The reward stage: train on ranked answers, then look at held-out ones.

    <stage>/checkpoints/               the model, with the head that gives scores
            ledger.json, ledger.jsonl  how many lists were used, and which were left out and why
            statistics.json            accuracy, calibration, mean and spread of the scores, overall and by domain;
                                       accuracy on the pairs confirmed after earlier rounds, which it was trained on

N: lists.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from torch import distributed

from trainwright.runtime import host
from trainwright.runtime.align.data.rows import SPLITS, RankedRows, rows_folder
from trainwright.runtime.align.ledger import LEDGER_ROWS_FILE, write_ledger
from trainwright.runtime.align.packed import as_long_as
from trainwright.runtime.align.reward.framing import Framing
from trainwright.runtime.align.reward.objective import RewardObjective
from trainwright.runtime.align.reward.quality import by_domain, quality
from trainwright.runtime.align.reward.ranked import RankedLists, Schedule
from trainwright.runtime.align.reward.scores import score
from trainwright.runtime.data.vocabulary import Vocabulary
from trainwright.runtime.store import write_atomically
from trainwright.runtime.train import parallel
from trainwright.runtime.train.loop import run
from trainwright.runtime.train.summary import PhaseError, PhaseSummary
from trainwright.spec.artefact import PATCHES
from trainwright.spec.plan import Estimate, RewardStage

STATISTICS_FILE = "statistics.json"


def train(
    stage: RewardStage,
    *,
    inputs: Mapping[str, Path],
    vocabulary: Vocabulary,
    root: Path,
    estimate: Estimate | None,
    out: Path,
    run_folder: Path,
    should_stop: Callable[[], bool],
) -> PhaseSummary:
    """The reward model is trained to its end and looked at, or saved and `interrupted` after `should_stop` on any rank.

    `inputs`: the folders of the stages it needs, by name; `root`: where the plan's paths begin; `host.install` has run.
    Weights but for the head are those of `start_from`. For the rest see `trainwright.runtime.train.phase.train`. Raises
    PhaseError, DataError, UnsupportedLayoutError.
    """
    parallel.initialize(stage.layout, seed=stage.seed)
    framing = Framing.of(stage.conditions, root, vocabulary)
    lists, held_out = (ranked_lists(stage, inputs, split, framing) for split in SPLITS)
    confirmed = confirmed_lists(stage, inputs, framing)
    if distributed.get_rank() == 0:
        _write_ledger(out, {"train": lists, "held_out": held_out})
    if not len(lists):
        raise PhaseError(f"none of {len(lists.left_out):,} ranked rows can be trained on; see {out / LEDGER_ROWS_FILE}")
    if stage.min_accuracy is not None and not len(held_out):
        raise PhaseError("no ranked rows are held out to measure the accuracy on that the gate wants: raise `held_out`")
    schedule = Schedule(lists, stage)
    stage = as_long_as(stage, len(schedule))

    def finish(chunks: list[GPTModel]) -> dict[str, Any]:
        """Without held-out lists there is no accuracy; where scores lie is still to be known."""
        found = statistics(chunks, stage, held_out if len(held_out) else lists)
        found = {"measured_on": "held_out" if len(held_out) else "train", **found}
        if len(confirmed):
            found["confirmed"] = statistics(chunks, stage, confirmed)
        if distributed.get_rank() == 0:
            text = json.dumps(found, ensure_ascii=False, indent=2) + "\n"
            write_atomically(out / STATISTICS_FILE, text.encode())
            print(_line(found), flush=True)
            if len(confirmed):
                print(confirmed_line(found["confirmed"]), flush=True)
        known: dict[str, Any] = (
            found if len(held_out) else {"accuracy": None, "by_domain": {}, "calibration": {"error": None}}
        )
        return {
            "accuracy": known["accuracy"],
            "accuracy_by_domain": {name: part["accuracy"] for name, part in known["by_domain"].items()},
            "calibration_error": known["calibration"]["error"],
            "score_mean": found["mean"],
            "score_std": found["std"],
            "measured_on": found["measured_on"],
            "confirmed_accuracy": found["confirmed"]["accuracy"] if len(confirmed) else None,
            "lists": len(lists),
            "left_out": len(lists.left_out) + len(held_out.left_out),
        }

    summary = run(
        stage,
        RewardObjective(stage, lists, schedule),
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
    """The stage's own sources and, as often as it wants to train on them, the pairs of earlier rounds."""
    sources = {name: [RankedRows(inputs["conversations"], name, split)] for name in stage.data}
    if patches := _patches(stage, inputs, split):
        sources[PATCHES] = patches
    repeats = {PATCHES: stage.patch_repeats} if split == "train" else {}
    return RankedLists(sources, framing, longest=stage.longest, row_length=stage.sequence_length, repeats=repeats)


def confirmed_lists(stage: RewardStage, inputs: Mapping[str, Path], framing: Framing) -> RankedLists:
    """The pairs of earlier rounds that are trained on, each once."""
    patches = _patches(stage, inputs, "train")
    return RankedLists({PATCHES: patches}, framing, longest=stage.longest, row_length=stage.sequence_length)


def _patches(stage: RewardStage, inputs: Mapping[str, Path], split: str) -> list[RankedRows]:
    """A round that nobody labelled has left no rows."""
    folders = [inputs[name] for name in stage.patches if rows_folder(inputs[name], PATCHES, split).exists()]
    return [RankedRows(folder, PATCHES, split) for folder in folders]


def statistics(chunks: list[GPTModel], stage: RewardStage, lists: RankedLists) -> dict[str, Any]:
    """What `statistics.json` says of the model on these lists. Every rank calls it; data ranks share the work."""
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
    domains = [lists.domain(number) for number in range(len(lists))]
    parts = by_domain(by_list, domains)
    return {**quality(by_list).plain(), "by_domain": {name: part.plain() for name, part in parts.items()}}


def _line(found: Mapping[str, Any]) -> str:
    domains = ", ".join(f"{name} {part['accuracy']:.3f}" for name, part in found["by_domain"].items())
    return (
        f"accuracy {found['accuracy']:.3f} of {found['pairs']:,} {found['measured_on'].replace('_', '-')} pairs "
        f"({domains}), calibration error {found['calibration']['error']:.3f}, "
        f"scores {found['mean']:.2f} +- {found['std']:.2f}"
    )


def confirmed_line(found: Mapping[str, Any]) -> str:
    """A pair that a person confirmed and that the model still has the wrong way round is what the policy will use."""
    said = f"accuracy {found['accuracy']:.3f} of {found['pairs']:,} confirmed pairs of earlier rounds"
    if found["accuracy"] > 0.5:
        return said
    return f"{said}: what they speak against pays as before; raise alignment.ppo.online.pair_repeats"


def _write_ledger(out: Path, parts: Mapping[str, RankedLists]) -> None:
    totals = {
        split: {"lists": len(lists), "answers": int(lists.answers_N.sum()), "left_out": len(lists.left_out)}
        for split, lists in parts.items()
    }
    write_ledger(out, totals, [row for lists in parts.values() for row in lists.left_out])
