"""The online stage: after a round of PPO, what the policy exploited, whom to ask, and what was said.

    <stage>/exploits.json      what the late answers show, and figures of all three models on held-out queries
            candidates.jsonl   pairs for somebody to judge
            labels.jsonl       the judgements that were found: id, choice, from where
            rows/patches.*     confirmed pairs as ranked rows, for the next reward model; none where nobody judged

InternLM2 Technical Report (arXiv 2403.17297), section 4.2.2.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from trainwright.runtime.align.data.encode import encode_row
from trainwright.runtime.align.data.messages import PreferenceRow
from trainwright.runtime.align.data.rows import SPLITS, Ranked, write_ranked
from trainwright.runtime.align.online.answers import MODELS, Asked, read_probes
from trainwright.runtime.align.online.candidates import CANDIDATES_FILE, Candidate, choose_candidates
from trainwright.runtime.align.online.exploits import find_exploits, repeated
from trainwright.runtime.align.online.labeller import ask
from trainwright.runtime.align.online.labels import Labels, agreement, read_labels, take
from trainwright.runtime.data.vocabulary import Vocabulary
from trainwright.spec.artefact import PATCHES
from trainwright.spec.plan import OnlineStage

EXPLOITS_FILE = "exploits.json"
LABELS_FILE = "labels.jsonl"


def run(
    stage: OnlineStage, *, root: Path, inputs: dict[str, Path], out: Path, progress: Callable[[str], None]
) -> dict[str, Any]:
    """See the module. `inputs` are the folders of the stages it needs. Raises DataError for labels that are none."""
    vocabulary = Vocabulary(inputs["tokenizer"])
    asked = read_probes(inputs[stage.ppo])
    candidates = choose_candidates(
        asked,
        find_exploits(asked, stage.barrier_bound, None),
        round_=stage.round,
        fast=stage.fast_pairs,
        slow=stage.slow_pairs,
    )
    shown = [candidate.plain(vocabulary) for candidate in candidates]
    _write_lines(out / CANDIDATES_FILE, shown)
    labels = _labels(stage, root, shown)
    judged = agreement(candidates, labels.choices)
    exploits = find_exploits(asked, stage.barrier_bound, judged)
    for exploit in exploits:
        progress(f"exploited: {exploit.says}")
    compared = [each for each in asked if each.held_out] or asked
    models = {model: _figures(compared, model) for model in MODELS}
    found = {"exploits": [exploit.plain() for exploit in exploits], "agreement": judged, "models": models}
    (out / EXPLOITS_FILE).write_text(json.dumps(found, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    _write_lines(out / LABELS_FILE, [{"id": id_, "choice": choice} for id_, choice in sorted(labels.choices.items())])
    pairs = [*_confirmed(candidates, labels), *_direct(labels.rows, vocabulary)]
    if pairs:
        _write_pairs(out, pairs, stage)
    else:
        progress("no labels: the next reward model learns of this round nothing; candidates are in candidates.jsonl")
    return {
        "exploits": len(exploits),
        "candidates": len(candidates),
        "labels": len(labels.choices) + len(labels.rows),
        "labels_of_others": labels.foreign,
        "pairs": len(pairs),
        "agreement": judged,
        "reward_start": models["start"]["score"],
        "reward_late": models["late"]["score"],
    }


def _labels(stage: OnlineStage, root: Path, shown: Sequence[dict[str, Any]]) -> Labels:
    """Of the files, and of the labeller for what no file judged: a person's word stands."""
    ids = {row["id"] for row in shown}
    labels = read_labels([root / label.path for label in stage.labels], ids)
    left = [row for row in shown if row["id"] not in labels.choices]
    if stage.labeller is not None and left:
        for number, row in enumerate(ask(stage.labeller, left, root), start=1):
            take(labels, ids, row, f"the labeller's line {number}")
    return labels


def _confirmed(candidates: Sequence[Candidate], labels: Labels) -> list[Ranked]:
    rows = []
    for candidate in candidates:
        choice = labels.choices.get(candidate.id)
        if choice is not None:
            better, worse = candidate.answers[choice], candidate.answers[1 - choice]
            rows.append(
                Ranked(
                    id=candidate.id,
                    domain=candidate.asked.domain,
                    prompt=np.array(candidate.asked.prompt_tokens, dtype=np.int32),
                    answers=tuple(np.array(each.tokens, dtype=np.int32) for each in (better, worse)),
                    margin=0.0,
                )
            )
    return rows


def _direct(rows: Sequence[PreferenceRow], vocabulary: Vocabulary) -> list[Ranked]:
    """Preferences that somebody wrote out in a label file."""
    encoded = [encode_row(row, vocabulary, code_newline=True) for row in rows]
    return [
        Ranked(each.digest.hex(), each.domain, each.segments[0], tuple(each.segments[1:]), each.margin)
        for each in encoded
    ]


def _write_pairs(out: Path, pairs: Sequence[Ranked], stage: OnlineStage) -> None:
    """Some are held out like other pairs, by their id; the first always trains, so that there is a row to read."""
    held = {pair.id for pair in pairs[1:] if int(pair.id[:8], 16) / 2**32 < stage.held_out}
    for split in SPLITS:
        rows = [pair for pair in pairs if (pair.id in held) == (split == "held_out")]
        write_ranked(out, PATCHES, split, rows)


def _figures(asked: Sequence[Asked], model: str) -> dict[str, float | None]:
    answers = [each.answers[model] for each in asked]
    if not answers:
        return {"score": None, "kl": None, "length": None, "repeated": None, "truncated": None}
    return {
        "score": fmean(each.score for each in answers),
        "kl": fmean(each.kl for each in answers),
        "length": fmean(len(each.tokens) for each in answers),
        "repeated": fmean(repeated(each.text) for each in answers),
        "truncated": fmean(each.truncated for each in answers),
    }


def _write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
