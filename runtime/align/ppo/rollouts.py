"""Answers to an iteration's queries, what is known of each token, and the file that keeps them.

`rollouts.jsonl`, a row an answer: {"iteration" (from 1), "query" (its id), "query_row" (its place among the source's
queries), "domain", "prompt", "answer" (texts; special
tokens have none), "answer_tokens" (with the stop token), "score" (the reward model's), "kl" (sum over the answer of
log pi_actor - log pi_reference, in nats), "length" (tokens of the answer), "truncated" (cut at the longest length),
"log_prob", "reference_log_prob" (sums over the answer)}. `probes.jsonl` has the same and more: see
`trainwright.runtime.align.ppo.probes`.

N: tokens of all answers, one answer after the other; R: answers.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainwright.runtime.align.data.rows import Query
from trainwright.runtime.data.vocabulary import Vocabulary
from trainwright.runtime.generate.generate import Generated

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Rollouts:
    """Queries and their answers, the same on every rank."""

    query_rows: Sequence[int]  # where the queries stand in their source
    queries: Sequence[Query]
    answers: Sequence[Generated]

    @property
    def lengths_R(self) -> NDArray[np.int64]:
        return np.array([len(answer.tokens) for answer in self.answers], dtype=np.int64)

    @property
    def truncated_R(self) -> NDArray[np.bool_]:
        """Answers that were cut at the longest length. They are scored as they stand, without `<|im_end|>`."""
        return np.array([not answer.stopped for answer in self.answers])

    @property
    def generated_N(self) -> Floats:
        """The log-probabilities of the tokens as they were drawn."""
        return np.concatenate([np.array(answer.log_probs, dtype=np.float64) for answer in self.answers])

    def sums(self, values_N: Floats) -> Floats:
        """Each answer's sum of a figure of its tokens."""
        lengths_R = self.lengths_R
        sums_R: Floats = np.add.reduceat(values_N, np.cumsum(lengths_R) - lengths_R)
        return sums_R


@dataclass(frozen=True)
class Judged:
    """Rollouts with their scores and with what actor and reference think of every token."""

    rollouts: Rollouts
    scores_R: Floats
    log_probs_N: Floats  # of the actor that gave the answers, by the forward pass that training takes
    reference_N: Floats

    @property
    def kl_R(self) -> Floats:
        """Each answer's log pi_actor - log pi_reference: over the actor's draws its mean is the divergence, in nats."""
        return self.rollouts.sums(self.log_probs_N - self.reference_N)

    def rows(self, vocabulary: Vocabulary, iteration: int) -> list[dict[str, Any]]:
        """As the file has them."""
        rollouts = self.rollouts
        log_prob_R, reference_R = rollouts.sums(self.log_probs_N), rollouts.sums(self.reference_N)
        return [
            {
                "iteration": iteration,
                "query": query.id,
                "query_row": rollouts.query_rows[row],
                "domain": query.domain,
                "prompt": vocabulary.decode(query.prompt.tolist()),
                "answer": vocabulary.decode(answer.tokens),
                "answer_tokens": answer.tokens,
                "score": float(self.scores_R[row]),
                "kl": float(self.kl_R[row]),
                "length": len(answer.tokens),
                "truncated": not answer.stopped,
                "log_prob": float(log_prob_R[row]),
                "reference_log_prob": float(reference_R[row]),
            }
            for row, (query, answer) in enumerate(zip(rollouts.queries, rollouts.answers, strict=True))
        ]


def append(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """The rows stand at the file's end and outlive this process."""
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def cut_back(path: Path, iteration: int) -> None:
    """The file holds the rows up to the iteration; later ones, and a last line that a kill cut short, are gone."""
    if not path.exists():
        return
    kept = 0
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n") or json.loads(line)["iteration"] > iteration:
                break
            kept += len(line)
    os.truncate(path, kept)
