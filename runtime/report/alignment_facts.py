"""What is known about the alignment of a run, as plain data. Structs that a file is decoded into say which.

Values are None where nobody measured them, or has not yet.
"""

from msgspec import Struct, field


class AlignmentFact(Struct, kw_only=True, frozen=True):
    """A piece of what is known."""


class ConversationRows(AlignmentFact, kw_only=True, frozen=True):
    """A source's part of the conversations stage's `ledger.json`; rows = used + held_out + duplicates + skipped."""

    kind: str
    rows: int
    used: int
    held_out: int
    duplicates: int
    skipped: dict[str, int]  # by reason
    tokens: int  # of used rows
    trained_tokens: int | None = None


class TalkRows(AlignmentFact, kw_only=True, frozen=True):
    """Of a source, what became of conversations in packed rows: `used` whole, `split` into `pieces`, or `dropped`."""

    used: int
    split: int
    pieces: int
    dropped: int
    lost_trained_tokens: int
    reasons: dict[str, int]


class TalkPart(AlignmentFact, kw_only=True, frozen=True):
    """One split in the ledger of SFT; all but `sources` is of training alone."""

    sources: dict[str, TalkRows]
    rows: int | None = None
    tokens: int | None = None
    padding_pct: float | None = None
    long_share: float | None = None


class TalkLedger(AlignmentFact, kw_only=True, frozen=True):
    """The `ledger.json` of SFT."""

    train: TalkPart
    held_out: TalkPart


class RankedPart(AlignmentFact, kw_only=True, frozen=True):
    """One split in the ledger of a reward model or of DPO."""

    lists: int
    left_out: int
    pairs: int | None = None


class RankedLedger(AlignmentFact, kw_only=True, frozen=True):
    """The `ledger.json` of a reward model or of DPO."""

    train: RankedPart
    held_out: RankedPart


class SftFacts(AlignmentFact, kw_only=True, frozen=True):
    stage: str
    ledger: TalkLedger | None
    held_out_loss: float | None  # nats per token of what the assistant says
    held_out_loss_by_source: dict[str, float | None]


class Bin(AlignmentFact, kw_only=True, frozen=True):
    """Pairs of about the same confidence."""

    low: float
    high: float
    pairs: int
    confidence: float
    accuracy: float


class Calibration(AlignmentFact, kw_only=True, frozen=True):
    error: float
    bins: tuple[Bin, ...]


class Quality(AlignmentFact, kw_only=True, frozen=True):
    """Of a reward model on pairs; `mean` and `std` are of its scores."""

    pairs: int
    accuracy: float
    margin_mean: float
    mean: float
    std: float
    calibration: Calibration


class Statistics(Quality, kw_only=True, frozen=True):
    """A reward model's `statistics.json`."""

    measured_on: str
    by_domain: dict[str, Quality]
    confirmed: Quality | None = None  # on the pairs of earlier rounds that it was trained on


class RewardFacts(AlignmentFact, kw_only=True, frozen=True):
    """A round's reward model. `corrections`: confirmed pairs of earlier rounds that it was trained on."""

    stage: str
    round: int
    ledger: RankedLedger | None
    left_out: tuple[str, ...]  # why, the first few
    corrections: int | None
    statistics: Statistics | None
    min_accuracy: float | None

    @property
    def passed(self) -> bool | None:
        """Whether the gate let it through; None without a gate, or without held-out pairs to measure on."""
        found = self.statistics
        if self.min_accuracy is None or found is None or found.measured_on != "held_out":
            return None
        return found.accuracy >= self.min_accuracy


class Rollout(AlignmentFact, kw_only=True, frozen=True):
    """A row of `rollouts.jsonl`: a query and what the actor answered. `kl` is in nats, summed over the answer."""

    iteration: int
    query: str
    domain: str
    prompt: str
    answer: str
    score: float
    kl: float
    length: int
    truncated: bool


class Probe(Rollout, kw_only=True, frozen=True):
    """A row of `probes.jsonl`: as a rollout, by one of the models that are compared."""

    model: str
    split: str


class ModelAnswer(AlignmentFact, kw_only=True, frozen=True):
    """What a round's model answered; `model` is start, early or late."""

    stage: str
    model: str
    iteration: int
    text: str
    score: float
    kl: float
    length: int
    truncated: bool


class SideBySide(AlignmentFact, kw_only=True, frozen=True):
    """A query and the answers of all models to it, in the order of rounds."""

    query: str
    domain: str
    split: str
    prompt: str
    answers: tuple[ModelAnswer, ...]


class PpoFacts(AlignmentFact, kw_only=True, frozen=True):
    """A round of PPO. `newest`: of the last iteration's answers the best and the worst; `of` how many."""

    stage: str
    round: int
    planned_ms: dict[str, float]  # of an iteration, by phase
    measured_ms: dict[str, float]
    newest: tuple[Rollout, ...]
    of: int


class Exploit(AlignmentFact, kw_only=True, frozen=True):
    kind: str
    says: str
    before: float
    after: float


class Exploits(AlignmentFact, kw_only=True, frozen=True):
    """An online stage's `exploits.json`. `agreement`: the share of labels that the reward model's order agrees with."""

    exploits: tuple[Exploit, ...] = ()
    agreement: float | None = None
    models: dict[str, dict[str, float | None]] = field(default_factory=dict)


class OnlineFacts(AlignmentFact, kw_only=True, frozen=True):
    stage: str
    round: int
    found: Exploits
    candidates: int | None
    labels: int | None
    pairs: int | None  # confirmed


class DpoFacts(AlignmentFact, kw_only=True, frozen=True):
    stage: str
    ledger: RankedLedger | None
    left_out: tuple[str, ...]
    held_out_loss: float | None
    accuracy: float | None


class AlignmentFacts(AlignmentFact, kw_only=True, frozen=True):
    """All of it; empty for a run without alignment."""

    conversations: dict[str, ConversationRows] = field(default_factory=dict)  # by source
    sft: tuple[SftFacts, ...] = ()
    reward: tuple[RewardFacts, ...] = ()
    ppo: tuple[PpoFacts, ...] = ()
    online: tuple[OnlineFacts, ...] = ()
    dpo: tuple[DpoFacts, ...] = ()
    side_by_side: tuple[SideBySide, ...] = ()
