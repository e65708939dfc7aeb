"""What an iteration does before anything learns: answers, what the models say of them, and what is to be learnt.

N: tokens of all answers, one answer after the other; R: answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel

from trainwright.runtime.align.data.chat import TURN_END
from trainwright.runtime.align.data.rows import Query
from trainwright.runtime.align.ppo import maths
from trainwright.runtime.align.ppo.entropy import read_log_probs_and_entropy
from trainwright.runtime.align.ppo.losses import Targets
from trainwright.runtime.align.ppo.models import Frozen, Models
from trainwright.runtime.align.ppo.phases import Phases
from trainwright.runtime.align.ppo.queries import mini_batch_of
from trainwright.runtime.align.ppo.rollouts import Floats, Judged, Rollouts
from trainwright.runtime.align.ppo.rows import Packer, Rows, answered, read_all, read_log_probs, read_scores
from trainwright.runtime.align.reward.framing import Framing
from trainwright.runtime.align.reward.scores import score
from trainwright.runtime.data.vocabulary import Vocabulary
from trainwright.runtime.generate.generate import Generated, generate
from trainwright.runtime.generate.sampling import Sampling
from trainwright.runtime.generate.share import shared_out
from trainwright.spec.plan import PpoStage

_TOGETHER = 128  # answers of a data rank that are drawn before it looks whether it was asked to stop


class Answering:
    """Draws answers to queries, the same in every layout but for rounding."""

    def __init__(self, stage: PpoStage, waves: int, vocabulary: Vocabulary, phases: Phases) -> None:
        """`waves`: in how many turns a rank draws its answers, for they do not fit its memory all at once."""
        self._vocabulary, self._phases = vocabulary, phases
        self._together = min(_TOGETHER, -(-stage.sequences_per_step // (stage.layout.data * waves)))
        self._sampling = Sampling(stage.max_new_tokens, stage.temperature, stage.top_p)
        self._stops = frozenset({vocabulary.special(TURN_END), vocabulary.end})

    def answer(
        self, chunks: Sequence[GPTModel], source: Sequence[Query], rows: Sequence[int], seeds: Sequence[int]
    ) -> Rollouts:
        """An answer to each of these rows of the source, on every rank. Raises Stopped."""
        queries = [source[row] for row in rows]
        prompts = [[self._vocabulary.begin, *query.prompt.tolist()] for query in queries]

        def some(numbers: Sequence[int]) -> list[Generated]:
            return generate(
                chunks,
                [prompts[number] for number in numbers],
                self._sampling,
                seeds=[seeds[number] for number in numbers],
                stop_tokens=self._stops,
                vocabulary=self._vocabulary.size,
            )

        group = parallel_state.get_data_parallel_group()
        together = self._together * group.size()
        answers: list[Generated] = []
        for first in range(0, len(prompts), together):
            self._phases.leave_if_asked()
            here = range(first, min(first + together, len(prompts)))
            answers += shared_out(len(here), lambda numbers: some([here[number] for number in numbers]), group)  # noqa: B023
        return Rollouts(rows, queries, answers)


class Judging:
    """Scores answers, and reads what the models make of their tokens."""

    def __init__(self, stage: PpoStage, framing: Framing, phases: Phases) -> None:
        self._stage, self._framing, self._phases = stage, framing, phases
        # A condition and the reward token come on top of the longest row of the other models.
        condition = max((len(turn) for turn in framing.conditions.values()), default=0)
        self._scored_length = stage.sequence_length + condition + 1

    def packer(self, rollouts: Rollouts) -> Packer:
        items = answered(rollouts, self._framing.begin)
        return Packer(items, self._stage.sequence_length, self._stage.layout, self._stage.seed)

    def scores(self, reward: Frozen, rollouts: Rollouts) -> Floats:
        """scores_R on every rank, each answer under the condition of its query's domain. A collective."""
        whole = [
            self._framing.whole(query.domain, query.prompt, np.array(answer.tokens, dtype=np.int32))
            for query, answer in zip(rollouts.queries, rollouts.answers, strict=True)
        ]

        def some(numbers: Sequence[int]) -> list[float]:
            asked = [whole[number] for number in numbers]
            found: list[float] = score(chunks, asked, row_length=self._scored_length).tolist()
            return found

        chunks = reward.here()
        scores = shared_out(len(whole), some, parallel_state.get_data_parallel_group())
        self._phases.leave_if_asked()
        return np.array(scores, dtype=np.float64)

    def judged(
        self, models: Models, rollouts: Rollouts, log_probs_N: Floats, packer: Packer, rows: Sequence[Rows]
    ) -> Judged:
        """With scores, and the reference's log-probabilities beside those that the same rows gave of the actor.

        A collective. Raises Stopped.
        """
        scores_R = self.scores(models.reward, rollouts)
        reference_N = read_all(models.reference.here(), read_log_probs, packer, rows)[0]
        self._phases.leave_if_asked()
        return Judged(rollouts, scores_R, log_probs_N, reference_N)


@dataclass(frozen=True)
class Experience:
    """An iteration's answers with all that is known before anything learns from them."""

    judged: Judged
    packer: Packer
    mini_batches: list[list[int]]  # of the first pass: the old log-probabilities come from the same rows
    values_N: Floats
    advantages_N: Floats
    returns_N: Floats
    entropy_N: Floats

    @property
    def tokens(self) -> int:
        """Of all answers with their queries."""
        return self.packer.tokens(range(len(self.judged.rollouts.answers)))

    @property
    def targets(self) -> Targets:
        return Targets.of(self.judged.log_probs_N, self.advantages_N, self.values_N, self.returns_N)

    def metrics(self) -> dict[str, float]:
        """Means over answers are of scores, lengths and divergences; over all tokens of the rest."""
        judged, rollouts = self.judged, self.judged.rollouts
        domains = sorted({query.domain for query in rollouts.queries})
        domain_R = np.array([query.domain for query in rollouts.queries])
        return {
            "ppo/kl_ref": float(judged.kl_R.mean()),
            "ppo/entropy": float(self.entropy_N.mean()),
            "ppo/reward_mean": float(judged.scores_R.mean()),
            "ppo/reward_std": float(judged.scores_R.std()),
            "ppo/adv_mean": float(self.advantages_N.mean()),
            "ppo/explained_var": maths.explained_variance(self.values_N, self.returns_N),
            "ppo/response_len_mean": float(rollouts.lengths_R.mean()),
            "ppo/truncated_pct": 100.0 * float(rollouts.truncated_R.mean()),
            "ppo/logprob_gap_max": float(np.abs(rollouts.generated_N - judged.log_probs_N).max()),
            **{f"ppo_reward_by_domain/{name}": float(judged.scores_R[domain_R == name].mean()) for name in domains},
        }


def gather_experience(
    stage: PpoStage, models: Models, rollouts: Rollouts, judging: Judging, phases: Phases, iteration: int
) -> Experience:
    """The score phase of an iteration, counted from 0. A collective. Raises Stopped."""
    mini_batches = mini_batches_of(stage, len(rollouts.answers), iteration, epoch=0)
    packer = judging.packer(rollouts)
    rows = [row for answers in mini_batches for row in packer.micro_batches(answers)]
    log_probs_N, entropy_N = read_all(models.actor.here(), read_log_probs_and_entropy, packer, rows, kinds=2)
    phases.leave_if_asked()
    judged = judging.judged(models, rollouts, log_probs_N, packer, rows)
    values_N = read_all(models.critic.here(), read_scores, packer, rows)[0]
    lengths_R = rollouts.lengths_R
    rewards_N = maths.token_rewards(log_probs_N, judged.reference_N, judged.scores_R, lengths_R, stage.kl)
    advantages_N, returns_N = maths.advantages(
        rewards_N, values_N, lengths_R, discount=stage.discount, gae_lambda=stage.gae_lambda
    )
    if stage.normalise_advantages:
        advantages_N = maths.normalised(advantages_N)
    return Experience(judged, packer, mini_batches, values_N, advantages_N, returns_N, entropy_N)


def mini_batches_of(stage: PpoStage, answers: int, iteration: int, epoch: int) -> list[list[int]]:
    return mini_batch_of(
        answers, stage.mini_batches, seed=stage.seed, round_=stage.round, iteration=iteration, epoch=epoch
    )
