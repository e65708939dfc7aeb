"""A round of PPO: iteration after iteration, with checkpoints, metrics, rollouts and a way out.

A checkpoint of iteration i, the rows of metrics and rollouts up to i, and the probes that were due by then are all that
a later attempt goes on from; it computes what follows as the first one would have, bit by bit.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path

from msgspec import structs
from torch import distributed

from trainwright.runtime.align.data.rows import Queries
from trainwright.runtime.align.ppo.appraisal import Appraisers
from trainwright.runtime.align.ppo.iteration import Answering, Experience, Judging, gather_experience
from trainwright.runtime.align.ppo.learn import learn_policy
from trainwright.runtime.align.ppo.models import build_actor
from trainwright.runtime.align.ppo.phases import Phases, Stopped, any_rank
from trainwright.runtime.align.ppo.probes import Probes
from trainwright.runtime.align.ppo.queries import ANSWERS, answer_seeds, draw, short_enough
from trainwright.runtime.align.ppo.resident import Room
from trainwright.runtime.align.ppo.rollouts import append, cut_back
from trainwright.runtime.align.ppo.saver import Saver
from trainwright.runtime.align.ppo.text import Text
from trainwright.runtime.data.vocabulary import Vocabulary
from trainwright.runtime.events import EVENTS_FILE, EventLog
from trainwright.runtime.train.checkpoint import TrainState
from trainwright.runtime.train.learning_rate import learning_rate
from trainwright.runtime.train.loop import count_parameters
from trainwright.runtime.train.metrics import peak_memory_gb
from trainwright.runtime.train.report import Report
from trainwright.runtime.train.summary import PhaseError, PhaseSummary
from trainwright.spec.artefact import CHECKPOINTS, ROLLOUTS_FILE
from trainwright.spec.plan import PpoStage


def run(
    stage: PpoStage,
    *,
    waves: int,
    inputs: dict[str, Path],
    vocabulary: Vocabulary,
    out: Path,
    run_folder: Path,
    should_stop: Callable[[], bool],
    room: Room,
    appraisers: Appraisers,
) -> PhaseSummary:
    """See `trainwright.runtime.align.ppo.stage.train`; Megatron-core's parallel state is initialised."""
    events = EventLog(run_folder / EVENTS_FILE, distributed.get_rank())
    phases = Phases(stage.name, events, should_stop)
    this = _Round(stage, waves, inputs, vocabulary, out, phases, room, appraisers)
    saver = Saver(stage, this.actor, appraisers, out, run_folder, events)
    actor, critic = saver.load() or (this.fresh, this.fresh)
    this.cut_back(actor.step)
    begun, consumed_before, seconds, reward = actor.step, actor.consumed_tokens, 0.0, None
    with Report(stage, out, distributed.get_rank(), begun) as report:
        for line in this.opening(begun):
            report.say(line)
        try:
            this.probe(actor.step)
            while actor.step < stage.steps:
                began = time.perf_counter()
                experience = this.experience(actor.step)
                # From here on the iteration is finished, whatever is asked meanwhile.
                values, actor, critic = this.learnt(experience, actor, critic)
                took = time.perf_counter() - began
                seconds += took
                reward = values["ppo/reward_mean"]
                if not all(map(math.isfinite, values.values())):
                    newest = saver.newest.name if saver.newest else "nothing"
                    raise PhaseError(f"not all figures of iteration {actor.step} are finite; the last save is {newest}")
                values |= {
                    "train/consumed_tokens": actor.consumed_tokens,
                    "perf/step_time_ms": took * 1e3,
                    "perf/tgs": experience.tokens / distributed.get_world_size() / took,
                    "memory/max_active_gb": peak_memory_gb(),
                    **phases.take_ms(),
                }
                left_s = (stage.steps - actor.step) * seconds / (actor.step - begun)
                this.keep(experience, actor.step)
                report.row(actor.step, values, _line(stage, actor.step, values, left_s), reward=reward)
                if saver.is_step(actor.step) or any_rank(saver.is_time()):
                    with phases.phase("save", actor.step):
                        saver.save(actor, critic)
                this.probe(actor.step)
            interrupted = False
        except Stopped:
            interrupted = True
            if not saver.is_saved(actor.step):
                with phases.phase("save", actor.step):
                    saver.save(actor, critic)
            report.say(
                f"asked to stop: saved iteration {actor.step}" if actor.step else "asked to stop: nothing is lost"
            )
    consumed = actor.consumed_tokens - consumed_before
    return PhaseSummary(
        step=actor.step,
        steps=stage.steps,
        interrupted=interrupted,
        continued_from=begun or None,
        loss=None,
        consumed_tokens=actor.consumed_tokens,
        parameters=count_parameters(this.actor.chunks),
        tokens_per_s=consumed / seconds if consumed else None,
        checkpoint=f"{CHECKPOINTS}/{saver.newest.name}" if saver.newest else None,
        results={"reward_mean": reward, "queries_left_out": this.left_out},
    )


class _Round:
    """The models of a round, the queries they answer, and what an iteration does with them."""

    def __init__(
        self,
        stage: PpoStage,
        waves: int,
        inputs: dict[str, Path],
        vocabulary: Vocabulary,
        out: Path,
        phases: Phases,
        room: Room,
        appraisers: Appraisers,
    ) -> None:
        self.stage, self._vocabulary, self._phases = stage, vocabulary, phases
        self._rollouts = out / ROLLOUTS_FILE
        conversations = inputs["conversations"]
        self._queries = Queries(conversations, stage.queries, "train")
        longest = stage.sequence_length - stage.max_new_tokens  # `<s>` takes the place of the last token drawn
        self._fitting = short_enough(self._queries, longest)
        self.left_out = len(self._queries) - len(self._fitting)
        if not self._fitting:
            raise PhaseError(f"none of the {len(self._queries):,} queries has at most {longest:,} tokens")
        self._longest = longest
        self._probes = Probes.of(stage, conversations, longest, out)
        mixes = stage.pretrain is not None and stage.pretrain.weight > 0 and stage.pretrain.share > 0
        self._text = Text(stage, stage.pretrain, inputs["tokenize"]) if stage.pretrain and mixes else None
        self._answering = Answering(stage, waves, vocabulary, phases)
        self.actor, reference = build_actor(stage, inputs, room)
        self._judging = Judging(stage, vocabulary.begin, reference, appraisers, phases)
        self._moves, self._apart = room.moves, stage.placement_kind == "split"

    @property
    def fresh(self) -> TrainState:
        """That of actor and critic when nothing is learnt yet."""
        names = (self.stage.queries, *(self._text.names if self._text else ()))
        return TrainState(
            stage=self.stage.name,
            step=0,
            optimizer_steps=0,
            consumed_tokens=0,
            consumed_tokens_by_source=dict.fromkeys(names, 0),
        )

    def opening(self, begun: int) -> list[str]:
        stage = self.stage
        kernel = self.actor.chunks[0].decoder.layers[0].self_attention.core_attention.choice
        lines = [
            f"queries={len(self._fitting)} actor={stage.start_from} reference={stage.reference_from} "
            f"reward={stage.reward_from} critic={stage.critic_from or stage.reward_from} attention={kernel.name} "
            f"({kernel.why}) loss={stage.loss} from iteration {begun}"
        ]
        if stage.offload and not self._moves:
            lines.append("offload: the device's memory is the host's, so nothing moves")
        if self.left_out:
            lines.append(f"warning: {self.left_out} queries of more than {self._longest} tokens are left out")
        return lines

    def cut_back(self, iteration: int) -> None:
        """The files hold what was there after the iteration. Rank 0 alone writes them."""
        if distributed.get_rank() == 0:
            cut_back(self._rollouts, iteration)
            self._probes.cut_back(iteration)

    def probe(self, iteration: int) -> None:
        """Raises Stopped."""
        self._probes.write(iteration, self.actor, self._answering, self._judging, self._vocabulary)

    def experience(self, iteration: int) -> Experience:
        """What the iteration, counted from 0, is to learn from; nothing has changed. Raises Stopped."""
        stage, count = self.stage, self.stage.sequences_per_step
        with self._phases.phase("generate", iteration + 1):
            places = draw(len(self._fitting), count, seed=stage.seed, round_=stage.round, iteration=iteration)
            seeds = answer_seeds(ANSWERS, count, seed=stage.seed, round_=stage.round, iteration=iteration)
            rows = [self._fitting[place] for place in places]
            rollouts = self._answering.answer(self.actor.here(), self._queries, rows, seeds)
        with self._phases.phase("score", iteration + 1):
            return gather_experience(self.actor, rollouts, self._judging, iteration)

    def learnt(
        self, experience: Experience, actor: TrainState, critic: TrainState
    ) -> tuple[dict[str, float], TrainState, TrainState]:
        """The iteration's metrics, and where actor and critic stand after it."""
        stage, iteration, steps = self.stage, actor.step, self.stage.epochs * self.stage.mini_batches
        answers, tokens = len(experience.judged.rollouts.answers), {stage.queries: experience.tokens}
        values = experience.metrics()
        learnt = self._judging.appraisers.ask("learn", answers, iteration, experience.values_N, experience.returns_N)
        critic = _advanced(critic, steps, tokens)
        if self._apart and iteration >= stage.critic_warmup:  # the critic learns meanwhile
            of_actor, actor = self._policy(experience, actor, steps, tokens)
            with self._phases.phase("critic", iteration + 1):
                return values | learnt() | of_actor, actor, critic
        with self._phases.phase("critic", iteration + 1):
            values |= learnt()
        if iteration < stage.critic_warmup:
            return values, _advanced(actor, 0, tokens), critic
        of_actor, actor = self._policy(experience, actor, steps, tokens)
        return values | of_actor, actor, critic

    def _policy(
        self, experience: Experience, actor: TrainState, steps: int, tokens: dict[str, int]
    ) -> tuple[dict[str, float], TrainState]:
        stage, iteration = self.stage, actor.step
        rate = learning_rate(stage.learning_rate, iteration)
        with self._phases.phase("actor", iteration + 1):
            learnt, of_text = learn_policy(stage, self.actor, experience, self._text, iteration, rate)
        return {**learnt, "train/lr": rate}, _advanced(actor, steps, tokens | of_text)

    def keep(self, experience: Experience, iteration: int) -> None:
        """The rollouts stand in their file."""
        if distributed.get_rank() == 0:
            append(self._rollouts, experience.judged.rows(self._vocabulary, iteration))


def _advanced(state: TrainState, steps: int, tokens: dict[str, int]) -> TrainState:
    """The state after one more iteration of so many optimizer steps, which took these tokens of each source."""
    by_source = dict(state.consumed_tokens_by_source)
    for name, count in tokens.items():
        by_source[name] = by_source.get(name, 0) + count
    return structs.replace(
        state,
        step=state.step + 1,
        optimizer_steps=state.optimizer_steps + steps,
        consumed_tokens=sum(by_source.values()),
        consumed_tokens_by_source=by_source,
    )


def _line(stage: PpoStage, step: int, values: dict[str, float], left_s: float) -> str:
    """The iteration in a line, and how long the round will still take."""
    hours, rest = divmod(int(left_s), 3600)
    shown = {
        "reward": "ppo/reward_mean", "kl": "ppo/kl_ref", "length": "ppo/response_len_mean",
        "truncated": "ppo/truncated_pct", "value_loss": "ppo/value_loss", "policy_loss": "ppo/policy_loss",
        "ptx_loss": "ppo/ptx_loss",
    }  # fmt: skip
    figures = " ".join(f"{name}={values[key]:.4g}" for name, key in shown.items() if key in values)
    return f"iteration={step}/{stage.steps} {figures} eta={hours}:{rest // 60:02d}:{rest % 60:02d}"
