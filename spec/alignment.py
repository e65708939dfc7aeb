"""`[chat]` and `[alignment.*]`: supervised fine-tuning, the reward model, PPO in online rounds, and DPO.

Defaults are InternLM2's (arXiv 2403.17297, section 4) where it states them; the others are ours and say so.
"""

from typing import Annotated, Literal

from msgspec import Meta

from trainwright.spec.learning_rate import LearningRate
from trainwright.spec.quantity import (
    Count,
    Fraction,
    Name,
    NonNegativeFloat,
    Path,
    PositiveFloat,
    Seconds,
    Table,
    Tokens,
)
from trainwright.spec.topology import TopologyOverride

Command = Annotated[tuple[str, ...], Meta(min_length=1)]
Secret = Annotated[str, Meta(pattern="^env:[A-Za-z_][A-Za-z0-9_]*$", extra={"alphabet": "a secret is `env:NAME`"})]
_TOPOLOGY = Meta(description="Any key of `[topology]`, for this stage alone.", examples=[{"recompute": "full"}])


class Chat(Table, kw_only=True, frozen=True):
    """How conversations are written and what becomes of rows that are not conversations."""

    code_newline: Annotated[
        bool, Meta(description="A newline before `<|im_end|>` in interpreter turns, as InternLM2's samples have it.")
    ] = True
    bad_rows: Annotated[
        Fraction, Meta(description="Of a source's rows, how many may be skipped; each is told in the ledger.")
    ] = 0.0


class LongData(Table, kw_only=True, frozen=True):
    mixture: Annotated[str, Meta(description="Long documents.", examples=["long"])]
    share: Annotated[float, Meta(ge=0.0, lt=1.0, description="Of the tokens.", examples=[0.1])]


class Sft(Table, kw_only=True, frozen=True, rename={"from_": "from"}):
    data: Annotated[
        tuple[str, ...], Meta(min_length=1, description="Sources of kind `chat`.", examples=[["dialogues"]])
    ]
    from_: Annotated[str | None, Meta(description="A phase; the last one if absent.", examples=["pretrain"])] = None
    long_data: Annotated[
        LongData | None,
        Meta(description="Long documents mixed in.", examples=[{"mixture": "base", "share": 0.1}]),
    ] = None
    learning_rate: LearningRate = LearningRate(peak=4e-5)
    epochs: Annotated[Count, Meta(description="Passes over the data.")] = 1
    sequence_length: Annotated[
        Count | None, Meta(description="That of the phase it starts from, if absent.", examples=[32_768])
    ] = None
    tokens_per_step: Annotated[
        Tokens | None, Meta(description="That of the phase it starts from, if absent.", examples=["1Mi"])
    ] = None
    topology: Annotated[TopologyOverride, _TOPOLOGY] = TopologyOverride()


class Barrier(Table, kw_only=True, frozen=True):
    bound: Annotated[PositiveFloat, Meta(description="Rewards beyond plus or minus this are held back.")] = 5.0
    weight: Annotated[NonNegativeFloat, Meta(description="Of that term in the loss.")] = 0.02


class Gate(Table, kw_only=True, frozen=True):
    min_accuracy: Annotated[Fraction, Meta(description="On held-out pairs; the run ends below it.", examples=[0.7])]


class Reward(Table, kw_only=True, frozen=True, rename={"from_": "from"}):
    data: Annotated[
        tuple[str, ...], Meta(min_length=1, description="Sources of kind `preference`.", examples=[["pairs"]])
    ]
    from_: Annotated[
        str | None, Meta(description="A phase or `sft`; the stage before it if absent.", examples=["sft"])
    ] = None
    focal_gamma: Annotated[
        NonNegativeFloat, Meta(description="Of the focal ranking loss: weighs down pairs that are easy.")
    ] = 2.0
    barrier: Barrier = Barrier()
    tokens_per_batch: Annotated[Tokens, Meta(description="Of one optimizer step, in whole pairs.")] = 16_384
    sequence_length: Annotated[
        Count, Meta(description="The longest conversation, its condition included; longer ones are told and left out.")
    ] = 8192
    conditions: Annotated[
        dict[Name, Path],
        Meta(description="Files of system prompts by domain: one reward model, several tastes."),
    ] = {}
    gate: Annotated[Gate | None, Meta(description="What the model must reach.", examples=[{"min_accuracy": 0.7}])] = (
        None
    )
    learning_rate: LearningRate = LearningRate(peak=1e-5, final=5e-6)
    weight_decay: Annotated[NonNegativeFloat, Meta(description="Of this stage.")] = 0.01
    epochs: Annotated[Count, Meta(description="Passes over the pairs.")] = 1
    topology: Annotated[TopologyOverride, _TOPOLOGY] = TopologyOverride()


class Pretrain(Table, kw_only=True, frozen=True):
    mixture: Annotated[str, Meta(description="Pre-training text that is mixed in.", examples=["base"])]
    weight: Annotated[NonNegativeFloat, Meta(description="Of its loss.")] = 0.5
    share: Annotated[NonNegativeFloat, Meta(description="Its tokens as a share of the tokens of PPO.")] = 0.5


class Labeller(Table, kw_only=True, frozen=True):
    """A program in the place of a person: reads candidates as JSON lines, writes labels as JSON lines."""

    command: Annotated[
        Command | None, Meta(description="A program and its arguments.", examples=[["python3", "label.py"]])
    ] = None
    endpoint: Annotated[
        str | None,
        Meta(
            description="An OpenAI-compatible chat endpoint that is asked which answer is better.",
            examples=["http://localhost:8000/v1"],
        ),
    ] = None
    model: Annotated[str | None, Meta(description="The name it goes by there.", examples=["judge"])] = None
    api_key: Annotated[Secret | None, Meta(description="Its secret.", examples=["env:JUDGE_KEY"])] = None
    timeout: Annotated[Seconds, Meta(description="Of the program, or of one question.")] = 600.0


class Online(Table, kw_only=True, frozen=True):
    """What follows each round of PPO but the last: what the policy exploited, and labels against it."""

    labels: Annotated[
        Path | None,
        Meta(
            description="Files of labels; those that exist enter the next round.",
            examples=["labels/*.jsonl"],
        ),
    ] = None
    labeller: Annotated[
        Labeller | None, Meta(description="A program that labels.", examples=[{"command": ["python3", "label.py"]}])
    ] = None
    fast_pairs: Annotated[int, Meta(ge=1, le=1000, description="Most pairs of late against early answers.")] = 100
    slow_pairs: Annotated[
        int, Meta(ge=0, description="Pairs among answers of the start, early and late iterations.")
    ] = 200
    pair_repeats: Annotated[
        Count, Meta(description="How often an epoch of a later reward model reads a confirmed pair; ours.")
    ] = 1


class Ppo(Table, kw_only=True, frozen=True, rename={"from_": "from"}):
    queries: Annotated[str, Meta(description="A source of kind `prompts`.", examples=["questions"])]
    from_: Annotated[
        str | None, Meta(description="A phase or `sft`; the stage before it if absent.", examples=["sft"])
    ] = None
    rounds: Annotated[Count, Meta(description="Of online RLHF.")] = 3
    actor_from: Annotated[
        Literal["start", "previous"],
        Meta(description="Where the actor of a later round starts; the reference is always the start."),
    ] = "start"
    iterations: Annotated[Count, Meta(description="Of one round.")] = 400
    queries_per_iteration: Annotated[Count, Meta(description="Answered in one iteration.")] = 512
    max_new_tokens: Annotated[Count, Meta(description="Of an answer; ours.")] = 1024
    probes: Annotated[
        Count, Meta(description="Queries that a round's models are compared by, held-out ones first; ours.")
    ] = 256
    sequence_length: Annotated[
        Count | None,
        Meta(description="Query and answer; that of the stage it starts from, if absent.", examples=[4096]),
    ] = None
    temperature: Annotated[PositiveFloat, Meta(description="Of the answers; ours.")] = 1.0
    top_p: Annotated[Fraction, Meta(description="Of the answers that are sampled.")] = 0.9
    kl: Annotated[NonNegativeFloat, Meta(description="Weight of the divergence from the start, token by token.")] = 0.01
    discount: Annotated[Fraction, Meta(description="Of later rewards; ours.")] = 1.0
    gae_lambda: Annotated[Fraction, Meta(description="Of the advantage estimate.")] = 0.99
    clip: Annotated[PositiveFloat, Meta(description="Of the ratio of policies; ours.")] = 0.2
    value_clip: Annotated[
        PositiveFloat | None, Meta(description="Of the critic's change; none if absent.", examples=[0.5])
    ] = None
    normalise_advantages: Annotated[bool, Meta(description="To mean 0 and deviation 1 over the iteration.")] = False
    mini_batches: Annotated[Count, Meta(description="Optimizer steps per pass over an iteration; ours.")] = 1
    epochs: Annotated[Count, Meta(description="Passes over an iteration; ours.")] = 1
    actor_learning_rate: Annotated[PositiveFloat, Meta(description="Constant.")] = 1e-6
    critic_learning_rate: Annotated[PositiveFloat, Meta(description="Constant.")] = 5e-6
    pretrain: Annotated[
        Pretrain | None,
        Meta(description="Against forgetting.", examples=[{"mixture": "base", "weight": 0.5, "share": 0.5}]),
    ] = None
    critic_warmup: Annotated[int, Meta(ge=0, description="Iterations in which only the critic learns.")] = 50
    placement: Annotated[
        Literal["auto", "colocated", "split"],
        Meta(description="Whether the four models share GPUs, or critic and reward model have their own."),
    ] = "auto"
    offload: Annotated[bool, Meta(description="What a moment does not need lies in the host's memory meanwhile.")] = (
        True
    )
    topology: Annotated[TopologyOverride, _TOPOLOGY] = TopologyOverride()
    online: Online = Online()


class Dpo(Table, kw_only=True, frozen=True, rename={"from_": "from"}):
    """Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290)."""

    data: Annotated[
        tuple[str, ...], Meta(min_length=1, description="Sources of kind `preference`.", examples=[["pairs"]])
    ]
    from_: Annotated[
        str | None, Meta(description="A phase or `sft`; the stage before it if absent.", examples=["sft"])
    ] = None
    beta: Annotated[PositiveFloat, Meta(description="Strength of the pull back to the start.")] = 0.1
    tokens_per_batch: Annotated[Tokens, Meta(description="Of one optimizer step, in whole pairs.")] = 131_072
    sequence_length: Annotated[
        Count | None, Meta(description="The longest conversation; that of the start if absent.", examples=[4096])
    ] = None
    learning_rate: LearningRate = LearningRate(peak=5e-7)
    epochs: Annotated[Count, Meta(description="Passes over the pairs.")] = 1
    topology: Annotated[TopologyOverride, _TOPOLOGY] = TopologyOverride()


class Alignment(Table, kw_only=True, frozen=True):
    sft: Sft | None = None
    reward: Reward | None = None
    ppo: Ppo | None = None
    dpo: Dpo | None = None
