"""The stages of alignment: their names, what each starts from, and what it does once all is written out.

A table of `[alignment]` names a kind of stage; the reward model and PPO have one stage a round.
"""

from trainwright.compiler.draft import AlignmentKind, Draft
from trainwright.spec.alignment import Dpo, Ppo, Reward, Sft

KINDS: tuple[AlignmentKind, ...] = ("sft", "reward", "ppo", "dpo")
CONVERSATIONS = "conversations"

# What each kind may start from, besides a phase.
STARTS: dict[AlignmentKind, tuple[AlignmentKind, ...]] = {
    "sft": (),
    "reward": ("sft",),
    "ppo": ("sft", "dpo"),
    "dpo": ("sft",),
}


def table_of(draft: Draft, kind: AlignmentKind) -> Sft | Reward | Ppo | Dpo | None:
    """The table of that kind, None if the spec has none."""
    table: Sft | Reward | Ppo | Dpo | None = getattr(draft.spec.alignment, kind)
    return table


def kinds_of(draft: Draft) -> list[AlignmentKind]:
    """The kinds of stages that the spec has, in the order of their stages."""
    return [kind for kind in KINDS if table_of(draft, kind) is not None]


def rounds_of(draft: Draft) -> int:
    """Rounds of online RLHF; one where only a reward model is trained."""
    return draft.spec.alignment.ppo.rounds if draft.spec.alignment.ppo is not None else 1


def stage_name(draft: Draft, name: str) -> str:
    """The stage that `of` and `from` mean by a name: of several rounds the last."""
    return f"{name}@{rounds_of(draft)}" if name in ("reward", "ppo") else name


def start_of_kind(draft: Draft, kind: AlignmentKind) -> str:
    """The phase or kind of stage that it starts from: as written, else SFT if there is one, else the last phase."""
    table = table_of(draft, kind)
    if table is not None and table.from_ is not None:
        return table.from_
    if kind != "sft" and draft.spec.alignment.sft is not None:
        return "sft"
    return draft.spec.phases[-1].name


def root_phase(draft: Draft, kind: AlignmentKind) -> int:
    """Index of the phase at the root of the chain that the stage stands on."""
    start = start_of_kind(draft, kind)
    for other in KINDS:
        if start == other:
            return root_phase(draft, other)
    return next(index for index, phase in enumerate(draft.spec.phases) if phase.name == start)
