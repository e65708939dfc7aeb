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
from trainwright.runtime.align.ppo.appraisal import Appraisers
from trainwright.runtime.align.ppo.entropy import read_log_probs_and_entropy
from trainwright.runtime.align.ppo.models import Frozen, Learner
from trainwright.runtime.align.ppo.phases import Phases
from trainwright.runtime.align.ppo.queries import mini_batches_of
from trainwright.runtime.align.ppo.rollouts import Floats, Judged, Rollouts
from trainwright.runtime.align.ppo.rows import Packer, Reader, Rows, answered, read_all, read_log_probs
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


@dataclass(frozen=True)
class Judging:
    """What is said of answers: by the reward model, and by the reference beside the actor."""

    stage: PpoStage
    begin: int  # the id of `<s>`
    reference: Frozen
    appraisers: Appraisers
    phases: Phases

    def packer(self, rollouts: Rollouts) -> Packer:
        items = answered(rollouts, self.begin)
        return Packer(items, self.stage.sequence_length, self.stage.layout, self.stage.seed)

    def read(
        self, read: Reader, asked: Frozen | Learner, packer: Packer, rows: Sequence[Rows], kinds: int = 1
    ) -> Floats:
        """figures_KN of a model's. A collective. Raises Stopped."""
        found = read_all(asked.here(), read, packer, rows, kinds)
        self.phases.leave_if_asked()
        return found


@dataclass(frozen=True)
class Experience:
    """An iteration's answers with all that is known before anything learns from them."""

    judged: Judged
    packer: Packer
    values_N: Floats
    advantages_N: Floats
    returns_N: Floats
    entropy_N: Floats

    @property
    def tokens(self) -> int:
        """Of all answers with their queries."""
        return self.packer.tokens(range(len(self.judged.rollouts.answers)))

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


def gather_experience(actor: Learner, rollouts: Rollouts, judging: Judging, iteration: int) -> Experience:
    """The score phase of an iteration, counted from 0. A collective. Raises Stopped."""
    stage, ask = judging.stage, judging.appraisers.ask
    scores, values = ask("scores", rollouts), ask("values", rollouts, iteration)
    mini_batches = mini_batches_of(stage, len(rollouts.answers), iteration, epoch=0)
    packer = judging.packer(rollouts)
    rows = [row for answers in mini_batches for row in packer.micro_batches(answers)]
    log_probs_N, entropy_N = judging.read(read_log_probs_and_entropy, actor, packer, rows, kinds=2)
    (reference_N,) = judging.read(read_log_probs, judging.reference, packer, rows)
    judged = Judged(rollouts, scores(), log_probs_N, reference_N)
    judging.phases.leave_if_asked()
    values_N: Floats = values()
    lengths_R = rollouts.lengths_R
    rewards_N = maths.token_rewards(log_probs_N, reference_N, judged.scores_R, lengths_R, stage.kl)
    advantages_N, returns_N = maths.advantages(
        rewards_N, values_N, lengths_R, discount=stage.discount, gae_lambda=stage.gae_lambda
    )
    if stage.normalise_advantages:
        advantages_N = maths.normalised(advantages_N)
    return Experience(judged, packer, values_N, advantages_N, returns_N, entropy_N)
