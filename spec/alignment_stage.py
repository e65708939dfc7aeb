"""The stages of a plan that make an aligned chat model of a pre-trained one.

conversations -> sft -> reward@1 -> ppo@1 -> online@1 -> reward@2 -> ppo@2 -> ...
                   \\-> dpo
"""

from typing import Literal

from trainwright.spec.layout import Layout, Part
from trainwright.spec.stage import SourcePlan, Stage, TrainingStage


class ConversationsStage(Stage, kw_only=True, frozen=True, tag="conversations"):
    """Rows of kind `chat`, `preference` and `prompts` -> tokens, and a ledger of every row: used, or why not."""

    sources: tuple[SourcePlan, ...]
    vocab_size: int
    held_out: float
    code_newline: bool  # a newline before `<|im_end|>` in interpreter turns
    bad_rows: float  # of a source's rows, how many may be skipped
    seed: int
    workers: int


class SftStage(TrainingStage, kw_only=True, frozen=True, tag="sft"):
    """Supervised fine-tuning on what the assistant says in the conversations of `data`. The optimizer starts anew."""

    data: tuple[str, ...]
    epochs: int
    long_mixture: dict[str, float]  # over text sources, sums to 1; empty: none
    long_share: float  # of the tokens


class ConditionPlan(Part, kw_only=True, frozen=True):
    """The system prompt that a domain's conversations are given before they are scored, and for nothing else."""

    path: str
    digest: str | None  # None: remote, not looked at


class RewardStage(TrainingStage, kw_only=True, frozen=True, tag="reward"):
    """The reward model of a round, trained from `start_from` on ranked answers, those of earlier rounds included.

    InternLM2, section 4.2.1. `sequence_length` is that of a packed row, `longest` that of one conversation.
    """

    round: int  # from 1
    data: tuple[str, ...]
    patches: tuple[str, ...]  # the online stages before it
    patch_repeats: int  # how often an epoch has their pairs
    epochs: int
    longest: int
    conditions: dict[str, ConditionPlan]  # by domain
    focal_gamma: float
    barrier_bound: float
    barrier_weight: float
    min_accuracy: float | None  # on held-out pairs


class PretrainPlan(Part, kw_only=True, frozen=True):
    """Pre-training text in PPO's optimizer steps, in sequences of `sequence_length`."""

    mixture: dict[str, float]
    weight: float  # of its loss
    share: float  # its tokens over PPO's
    sequence_length: int


class PpoStage(TrainingStage, kw_only=True, frozen=True, tag="ppo"):
    """A round of PPO. `steps` are iterations, `sequences_per_step` queries of one; the actor starts from `start_from`.

    `checkpoints/` are the actor's, `critic/checkpoints/` the critic's. InternLM2, section 4.2.3.
    """

    round: int  # from 1
    reference_from: str
    reward_from: str  # also where the critic starts, without its head
    critic_from: str | None  # the round before, whose critic goes on; None: it starts from the reward model
    queries: str
    conditions: dict[str, ConditionPlan]
    max_new_tokens: int
    probes: int  # queries that its models are compared by
    temperature: float
    top_p: float
    kl: float
    discount: float
    gae_lambda: float
    clip: float
    value_clip: float | None
    normalise_advantages: bool
    mini_batches: int
    epochs: int
    critic_warmup: int
    critic_learning_rate: float
    pretrain: PretrainPlan | None
    placement_kind: Literal["colocated", "split"]
    offload: bool
    critic_layout: Layout  # of the critic and the reward model: ranks of their own if `split`, else the actor's

    @property
    def world_size(self) -> int:
        own = self.layout.world_size
        return own + self.critic_layout.world_size if self.placement_kind == "split" else own


class LabelFile(Part, kw_only=True, frozen=True):
    path: str
    digest: str


class LabellerPlan(Part, kw_only=True, frozen=True):
    command: tuple[str, ...] | None
    endpoint: str | None
    model: str | None
    api_key: str | None  # "env:NAME"
    timeout_s: float


class OnlineStage(Stage, kw_only=True, frozen=True, tag="online"):
    """After a round of PPO: what the policy exploited, candidates for labels, and the labels there are.

    InternLM2, section 4.2.2: fast path (late against early answers) and slow path (start, early, late).
    """

    round: int  # of the PPO before it
    ppo: str
    reward: str
    fast_pairs: int
    slow_pairs: int
    labels: tuple[LabelFile, ...]
    labeller: LabellerPlan | None
    barrier_bound: float  # of the reward model's scores
    held_out: float
    seed: int


class DpoStage(TrainingStage, kw_only=True, frozen=True, tag="dpo"):
    """Direct preference optimisation (arXiv 2305.18290) of `start_from`, which is also the reference."""

    data: tuple[str, ...]
    epochs: int
    longest: int
    beta: float
