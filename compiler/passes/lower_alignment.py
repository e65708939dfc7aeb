"""Alignment as stages: conversations, SFT, then round by round a reward model, PPO and what is learnt of it; DPO."""

import os
from pathlib import Path
from typing import Any, Literal

import msgspec

from trainwright.compiler.alignment import CONVERSATIONS, rounds_of
from trainwright.compiler.cost.case import fuses_loss
from trainwright.compiler.draft import AlignmentKind, Draft, Pass
from trainwright.compiler.sources import digest_files
from trainwright.compiler.training import checkpoint_plan, devices_of, layout_of, optimizer_plan
from trainwright.spec.alignment import Dpo, Online, Ppo, Reward, Sft
from trainwright.spec.files import is_remote, local_files
from trainwright.spec.learning_rate import LearningRate
from trainwright.spec.plan import (
    AnyStage,
    ConditionPlan,
    ConversationsStage,
    DpoStage,
    LabelFile,
    LabellerPlan,
    Layout,
    LearningRatePlan,
    OnlineStage,
    PpoStage,
    PretrainPlan,
    RewardStage,
    SftStage,
)
from trainwright.spec.units import Steps, interval

CHAT_KINDS = ("chat", "preference", "prompts")


def lower_alignment(draft: Draft) -> None:
    alignment = draft.spec.alignment
    stages: list[AnyStage] = []
    if draft.alignment:
        stages.append(_conversations(draft))
    if alignment.sft is not None:
        stages.append(_sft(draft, alignment.sft))
    for number in range(1, rounds_of(draft) + 1):
        if alignment.reward is not None:
            stages.append(_reward(draft, alignment.reward, number))
        if alignment.ppo is not None:
            stages.append(_ppo(draft, alignment.ppo, number))
            stages.append(_online(draft, alignment.ppo.online, number))
    if alignment.dpo is not None:
        stages.append(_dpo(draft, alignment.dpo))
    draft.aligned = tuple(stages)


def _conversations(draft: Draft) -> ConversationsStage:
    data, chat = draft.spec.data, draft.spec.chat
    return ConversationsStage(
        name=CONVERSATIONS,
        needs=("tokenizer",),
        sources=tuple(source for source in draft.sources.values() if source.kind in CHAT_KINDS),
        vocab_size=draft.model.vocab_size,
        held_out=data.held_out,
        code_newline=chat.code_newline,
        bad_rows=chat.bad_rows,
        seed=draft.spec.run.seed,
        workers=0 if data.workers == "auto" else data.workers,
    )


def _sft(draft: Draft, sft: Sft) -> SftStage:
    course = draft.alignment["sft"]
    long = sft.long_data
    return SftStage(
        name="sft",
        needs=_needs(course.start_from, "tokenize" if long else None),
        **_training(draft, "sft", _curve(sft.learning_rate)),
        start_from=course.start_from,
        data=sft.data,
        epochs=sft.epochs,
        long_mixture=draft.mixtures[long.mixture] if long else {},
        long_share=long.share if long else 0.0,
    )


def _reward(draft: Draft, reward: Reward, number: int) -> RewardStage:
    course, ppo = draft.alignment["reward"], draft.spec.alignment.ppo
    patches = tuple(f"online@{before}" for before in range(1, number))
    training = _training(draft, "reward", _curve(reward.learning_rate))
    training["optimizer"] = msgspec.structs.replace(training["optimizer"], weight_decay=reward.weight_decay)
    return RewardStage(
        name=f"reward@{number}",
        needs=_needs(course.start_from, *patches),
        **training,
        start_from=course.start_from,
        round=number,
        data=reward.data,
        patches=patches,
        # 1 where there is nothing to repeat: another value of the key leaves the first round's result as it is.
        patch_repeats=ppo.online.pair_repeats if ppo and patches else 1,
        epochs=reward.epochs,
        longest=course.longest,
        conditions=_conditions(draft),
        focal_gamma=reward.focal_gamma,
        barrier_bound=reward.barrier.bound,
        barrier_weight=reward.barrier.weight,
        min_accuracy=reward.gate.min_accuracy if reward.gate else None,
    )


def _ppo(draft: Draft, ppo: Ppo, number: int) -> PpoStage:
    course = draft.alignment["ppo"]
    before = f"ppo@{number - 1}" if number > 1 and ppo.actor_from == "previous" else None
    start, reward = before or course.start_from, f"reward@{number}"
    training = _training(draft, "ppo", _constant(ppo.actor_learning_rate, ppo.iterations), steps=ppo.iterations)
    return PpoStage(
        name=f"ppo@{number}",
        needs=_needs(course.start_from, start, reward, "tokenize" if ppo.pretrain else None),
        **training,
        start_from=start,
        round=number,
        reference_from=course.start_from,
        reward_from=reward,
        critic_from=before,
        queries=ppo.queries,
        conditions=_conditions(draft),
        max_new_tokens=ppo.max_new_tokens,
        probes=ppo.probes,
        temperature=ppo.temperature,
        top_p=ppo.top_p,
        kl=ppo.kl,
        discount=ppo.discount,
        gae_lambda=ppo.gae_lambda,
        clip=ppo.clip,
        value_clip=ppo.value_clip,
        normalise_advantages=ppo.normalise_advantages,
        mini_batches=ppo.mini_batches,
        epochs=ppo.epochs,
        critic_warmup=ppo.critic_warmup,
        critic_learning_rate=ppo.critic_learning_rate,
        pretrain=_pretrain(draft, ppo),
        placement_kind="split" if ppo.placement == "split" else "colocated",
        offload=ppo.offload,
        critic_layout=training["layout"],
    )


def _pretrain(draft: Draft, ppo: Ppo) -> PretrainPlan | None:
    mixed = ppo.pretrain
    if mixed is None:
        return None
    return PretrainPlan(
        mixture=draft.mixtures[mixed.mixture],
        weight=mixed.weight,
        share=mixed.share,
        sequence_length=draft.alignment["ppo"].sequence_length,
    )


def _online(draft: Draft, online: Online, number: int) -> OnlineStage:
    labeller = online.labeller
    return OnlineStage(
        name=f"online@{number}",
        needs=_needs(f"ppo@{number}", f"reward@{number}"),
        round=number,
        ppo=f"ppo@{number}",
        reward=f"reward@{number}",
        fast_pairs=online.fast_pairs,
        slow_pairs=online.slow_pairs,
        labels=_labels(draft, online),
        labeller=LabellerPlan(
            command=labeller.command,
            endpoint=labeller.endpoint,
            model=labeller.model,
            api_key=labeller.api_key,
            timeout_s=labeller.timeout,
        )
        if labeller
        else None,
        barrier_bound=draft.spec.alignment.reward.barrier.bound if draft.spec.alignment.reward else 0.0,
        held_out=draft.spec.data.held_out,
        seed=draft.spec.run.seed,
    )


def _labels(draft: Draft, online: Online) -> tuple[LabelFile, ...]:
    """The files of labels that are there now."""
    if online.labels is None or is_remote(online.labels):
        return ()
    files = local_files(draft.root, online.labels, (), ())
    root = draft.root.resolve()
    return tuple(LabelFile(path=_relative(file.location, root), digest=digest_files([file]).digest) for file in files)


def _relative(location: str, root: Path) -> str:
    return Path(os.path.relpath(Path(location).resolve(), root)).as_posix()


def _dpo(draft: Draft, dpo: Dpo) -> DpoStage:
    course = draft.alignment["dpo"]
    return DpoStage(
        name="dpo",
        needs=_needs(course.start_from),
        **_training(draft, "dpo", _curve(dpo.learning_rate)),
        start_from=course.start_from,
        data=dpo.data,
        epochs=dpo.epochs,
        longest=course.longest,
        beta=dpo.beta,
    )


def _needs(*others: str | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(("tokenizer", CONVERSATIONS, *(name for name in others if name is not None))))


def _conditions(draft: Draft) -> dict[str, ConditionPlan]:
    reward = draft.spec.alignment.reward
    paths = reward.conditions if reward else {}
    return {domain: ConditionPlan(path=path, digest=_digest(draft, path)) for domain, path in paths.items()}


def _digest(draft: Draft, path: str) -> str | None:
    return None if is_remote(path) else digest_files(local_files(draft.root, path, (), ())).digest


def _training(draft: Draft, kind: AlignmentKind, rate: LearningRatePlan, steps: int = 0) -> dict[str, Any]:
    """What every training stage says of itself."""
    run, course = draft.spec.run, draft.alignment[kind]
    layout = layout_of(
        course.topology,
        data=course.data,
        sequences_per_step=course.sequences_per_step,
        sequence_length=course.sequence_length,
    )
    return {
        "model": draft.model,
        "seed": run.seed,
        "precision": run.precision,
        "steps": steps,
        "tokens_per_step": course.tokens_per_step,
        "sequence_length": course.sequence_length,
        "sequences_per_step": course.sequences_per_step,
        "rope_base": draft.courses[course.phase].rope_base,
        "learning_rate": rate,
        "optimizer": optimizer_plan(draft),
        "attention": draft.spec.kernels.attention,
        "loss": _loss(draft, kind, layout),
        "layout": layout,
        "placement": devices_of(draft, layout.world_size),
        "checkpoint": checkpoint_plan(draft),
        "log_every": run.log_every,
    }


def _curve(rate: LearningRate) -> LearningRatePlan:
    """`decay_steps` are known once the data are packed."""
    warmup = interval(rate.warmup)
    assert isinstance(warmup, Steps), "check_alignment lets no warm-up pass that is a time"
    final = rate.peak / 10 if rate.final is None else rate.final
    return LearningRatePlan(
        peak=rate.peak, final=final, warmup_steps=warmup.steps, decay=rate.decay, decay_steps=0, offset=0
    )


def _constant(rate: float, steps: int) -> LearningRatePlan:
    return LearningRatePlan(peak=rate, final=rate, warmup_steps=0, decay="constant", decay_steps=steps, offset=0)


def _loss(draft: Draft, kind: AlignmentKind, layout: Layout) -> Literal["logits", "fused"]:
    if kind == "reward":
        return "logits"  # it has one score a token, and no vocabulary
    tokens = draft.alignment[kind].sequence_length * layout.micro_batch / layout.context
    fused = fuses_loss(draft.spec.kernels.loss, tokens, draft.model.vocab_size / layout.tensor)
    return "fused" if fused else "logits"


LOWER_ALIGNMENT = Pass(
    lower_alignment,
    needs=(
        "spec.alignment",
        "spec.chat",
        "spec.cluster",
        "spec.data",
        "spec.kernels",
        "spec.optimizer",
        "spec.run",
        "model",
        "mixtures",
        "courses",
        "alignment",
        "alignment can be laid out",
        "sources",
    ),
    gives=("aligned",),
)
