"""What a training stage is expected to take."""

from trainwright.spec.layout import Part


class RankMemory(Part, kw_only=True, frozen=True):
    """Memory of a rank on one pipeline rank at the moment of its peak, in bytes."""

    pipeline_rank: int
    parameters_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    activations_bytes: int
    activations: dict[str, int]  # by kind; sums to `activations_bytes`
    logits_bytes: int
    communication_bytes: int  # gathered weights, buckets, buffers of exchanges
    temporaries_bytes: int
    framework_bytes: int  # device context, communicators: outside of the allocator
    total_bytes: int
    peak: str  # the moment, in a few words
    binds: str  # the largest term

    @property
    def allocated_bytes(self) -> int:
        """What torch's allocator hands out: to be compared with `torch.cuda.max_memory_allocated`."""
        return self.total_bytes - self.framework_bytes


class ChunkTime(Part, kw_only=True, frozen=True):
    """Seconds of one micro-batch in one model chunk, its tensor- and context-parallel exchanges included.

    `weight_s` is the part of `backward_s` that computes weight gradients, which zero-bubble schedules defer.
    """

    pipeline_rank: int
    chunk: int
    forward_s: float
    backward_s: float
    weight_s: float


class StepTime(Part, kw_only=True, frozen=True):
    """Seconds of one optimizer step on the slowest rank. `parts` add up to `time_s`; low and high hold 80 % of runs."""

    time_s: float
    low_s: float
    high_s: float
    parts: dict[str, float]  # kind of work on the critical path -> seconds
    chunks: tuple[ChunkTime, ...]
    transfer_s: float  # of one micro-batch's activations between two pipeline ranks
    bubble: float  # idle time of the pipeline as a share of its span


class Goodput(Part, kw_only=True, frozen=True):
    """What failures and checkpoints cost of a phase's time."""

    share: float  # of wall time that trains steps which are not lost
    failures: float  # expected in the phase
    between_failures_s: float  # on average, of all the phase's devices together
    save_s: float  # that training stands still for one checkpoint
    checkpoint_bytes: int
    checkpoint_interval_s: float  # of training, as the spec has it
    best_interval_s: float  # Daly 2006; about sqrt(2 * save * time between failures)
    best_share: float  # what `share` would be with it


class Moment(Part, kw_only=True, frozen=True):
    """One of the moments of an iteration of PPO: generate, score, critic, actor."""

    name: str
    time_s: float | None
    ranks: int  # that work in it
    idle: float | None  # share of all of the cluster's ranks' time in it that nothing is done in
    memory: RankMemory  # of the fullest rank


class IterationEstimate(Part, kw_only=True, frozen=True):
    """An iteration of PPO under one placement of its models. Moments of a split placement may run side by side."""

    placement: str  # "colocated" or "split"
    chosen: bool
    ranks: int
    moments: tuple[Moment, ...]
    waves: int  # in which a rank's answers are generated: as many as its memory allows at once
    time_s: float | None
    idle: float | None  # share of all of the cluster's ranks' time
    duration_s: float | None  # of the stage
    cost: float | None

    @property
    def fullest(self) -> RankMemory:
        """The memory of the fullest rank at its fullest moment."""
        return max((moment.memory for moment in self.moments), key=lambda memory: memory.total_bytes)


class Estimate(Part, kw_only=True, frozen=True):
    """What a training stage is expected to take. None where nothing is known of the device's speed or its price."""

    stage: str
    model_flops_per_token: float
    hardware_flops_per_token: float  # with recomputation
    memory: tuple[RankMemory, ...]  # one for each pipeline rank
    capacity_bytes: int | None
    step: StepTime | None
    tokens_per_s: float | None
    mfu: float | None
    goodput: Goodput | None
    duration_s: float | None  # wall time, failures and checkpoints included
    duration_low_s: float | None
    duration_high_s: float | None
    gpu_hours: float | None
    energy_kwh: float | None
    cost: float | None
    cost_low: float | None
    cost_high: float | None
    steps: int | None = None  # expected, where the plan does not know them: None also if nobody can
    iterations: tuple[IterationEstimate, ...] = ()  # of PPO: one for each placement of its models
    passes: dict[str, float] = {}  # of a phase: how often it reads the text of a source, where that can be told

    @property
    def is_open(self) -> bool:
        """Whether a step's time is known, but not how many there are."""
        return self.step is not None and self.duration_s is None

    @property
    def step_time_s(self) -> float | None:
        return self.step.time_s if self.step else None
