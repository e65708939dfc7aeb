"""Answers of the same queries early and late: what the online stage and the report compare.

`probes.jsonl` has the rows of `rollouts.jsonl` and three keys more: {"model": "start" (the reference), "early" (the
actor after a tenth of the iterations in which it learns, at least one), "late" (the actor at the end), "split" (of the
query: "held_out", or "train" where too few are held out), "prompt_tokens" (without `<s>`)}. "iteration" is how many
iterations the model had seen. All three answer the same queries from the same seeds.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import distributed

from trainwright.runtime import host
from trainwright.runtime.align.data.rows import Queries, Query
from trainwright.runtime.align.ppo.iteration import Answering, Judging
from trainwright.runtime.align.ppo.models import Frozen, Learner
from trainwright.runtime.align.ppo.queries import PROBES, answer_seeds, draw, short_enough
from trainwright.runtime.align.ppo.rollouts import Judged, append, cut_back
from trainwright.runtime.align.ppo.rows import read_log_probs
from trainwright.runtime.data.vocabulary import Vocabulary
from trainwright.runtime.train.step import over_all_ranks
from trainwright.spec.artefact import PROBES_FILE
from trainwright.spec.plan import PpoStage

Model = Literal["start", "early", "late"]


@dataclass(frozen=True)
class Probes:
    """The queries of a stage that its models are compared by."""

    stage: PpoStage
    queries: list[Query]
    places: list[tuple[str, int]]  # of each query: its split, and its row there
    path: Path

    @classmethod
    def of(cls, stage: PpoStage, conversations: Path, longest: int, out: Path) -> "Probes":
        """From the folder of the conversations stage; queries of more than `longest` tokens are left out."""
        queries: list[Query] = []
        places: list[tuple[str, int]] = []
        for split in ("held_out", "train"):
            source = Queries(conversations, stage.queries, split)
            fitting = short_enough(source, longest)
            count = min(len(fitting), stage.probes - len(queries))
            if count:
                chosen = draw(len(fitting), count, seed=stage.seed, round_=stage.round, iteration=0)
                places += [(split, fitting[place]) for place in chosen]
                queries += [source[fitting[place]] for place in chosen]
        return cls(stage, queries, places, out / PROBES_FILE)

    def cut_back(self, iteration: int) -> None:
        """The file holds no answers of models that come later."""
        cut_back(self.path, iteration)

    def due(self, iteration: int) -> list[Model]:
        """The models that stand after so many iterations. A model may be two: where all is over after one."""
        learning = max(0, self.stage.steps - self.stage.critic_warmup)
        early = min(self.stage.steps, self.stage.critic_warmup + max(1, learning // 10))
        at: dict[Model, int] = {"start": 0, "early": early, "late": self.stage.steps}
        return [model for model, place in at.items() if place == iteration]

    def missing(self, iteration: int) -> list[Model]:
        """Of those, the ones whose answers are not all in the file; what there is of them is gone. A collective."""
        due = self.due(iteration)
        if not due:
            return []
        complete = torch.zeros((), dtype=torch.float64, device=host.device())
        if distributed.get_rank() == 0:
            there = self._written()
            if all(there.get(model, 0) == len(self.queries) for model in due):
                complete += 1
            else:
                cut_back(self.path, iteration - 1)
        return [] if over_all_ranks(complete).item() else due

    def _written(self) -> dict[str, int]:
        found: dict[str, int] = {}
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines(keepends=True):
                if line.endswith("\n"):
                    model = json.loads(line)["model"]
                    found[model] = found.get(model, 0) + 1
        return found

    def write(
        self, iteration: int, actor: Learner, answering: Answering, judging: Judging, vocabulary: Vocabulary
    ) -> None:
        """The file has the answers of the models that are due after the iteration. A collective. Raises Stopped."""
        for model in self.missing(iteration):
            asked = judging.reference if model == "start" else actor
            rows = self._rows(asked, answering, judging, vocabulary, iteration)
            if distributed.get_rank() == 0:
                append(self.path, [{**row, "model": model} for row in rows])

    def _rows(
        self,
        asked: Frozen | Learner,
        answering: Answering,
        judging: Judging,
        vocabulary: Vocabulary,
        iteration: int,
    ) -> list[dict[str, Any]]:
        every = range(len(self.queries))
        seeds = answer_seeds(PROBES, len(every), seed=self.stage.seed, round_=self.stage.round, iteration=0)
        rollouts = answering.answer(asked.here(), self.queries, every, seeds)
        scores = judging.appraisers.ask("scores", rollouts)
        packer = judging.packer(rollouts)
        rows = packer.micro_batches(every)
        (log_probs_N,) = judging.read(read_log_probs, asked, packer, rows)
        (reference_N,) = judging.read(read_log_probs, judging.reference, packer, rows)
        judged = Judged(rollouts, scores(), log_probs_N, reference_N)
        return [
            {**row, "query_row": place, "split": split, "prompt_tokens": query.prompt.tolist()}
            for row, (split, place), query in zip(
                judged.rows(vocabulary, iteration), self.places, self.queries, strict=True
            )
        ]
