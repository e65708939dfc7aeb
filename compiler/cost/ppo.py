"""An iteration of PPO: what each moment takes of time and of a rank's memory, for both placements of its models.

    generate   the actor answers: reading the prompt is a forward pass, each further token reads the weights and the
               keys and values of all rows once from memory, and waits for the tensor ranks 2 times a layer
    score      forward passes: reference and actor (log-probabilities), reward model, critic (values)
    critic     a training step of the critic, per pass over the answers
    actor      a training step of the actor, with as much pre-training text as the spec mixes in

Colocated: one after the other on the same ranks, with what a moment does not need in the host's memory if offloaded.
Split: the actor and the reference on one half, the critic and the reward model on the other; halves score and train
at the same time, and the critic's half waits while the actor's generates.

How long answers are is not known beforehand: a packed row is taken to be FILLED, and generation to last as long as the
longest answer may. The time of moving offloaded weights over the host's link is not counted.
"""

from dataclasses import dataclass, replace

import msgspec

from trainwright.compiler.cost.case import Case, Part, parts_of
from trainwright.compiler.cost.framework import load_framework
from trainwright.compiler.cost.memory import estimate_rank_memory
from trainwright.compiler.cost.network import Group
from trainwright.compiler.cost.pace import Pacer
from trainwright.compiler.cost.parameters import part_parameters
from trainwright.compiler.cost.time import step_time
from trainwright.spec.device import HardwareFile
from trainwright.spec.plan import Hardware, Layout, Moment, PpoStage, RankMemory

FILLED = 0.5  # of a row of query and answer; ours
_ROOM = 0.9  # of a card, for what is generated at once
_LAUNCHES = 12  # kernels of a layer that reads one token
_ELEMENT_BYTES = {"fp32": 4, "bf16": 2}
_MOMENTS = ("generate", "score", "critic", "actor")


@dataclass(frozen=True)
class Iteration:
    """Seconds are None where the device's speed is not known."""

    moments: tuple[Moment, ...]
    waves: int
    time_s: float | None
    idle: float | None
    ranks: int


def iteration(stage: PpoStage, hardware: Hardware, *, split: bool, offload: bool, cluster_ranks: int) -> Iteration:
    """One iteration with the models colocated or split, on the stage's layout or two of it side by side."""
    on_cpu = hardware.device == "cpu"
    layout = _halved(stage.layout, cluster_ranks) if split and stage.placement_kind != "split" else stage.layout
    planned = msgspec.structs.replace(stage, layout=layout)
    case = Case.of(planned, on_cpu=on_cpu)
    memory = _Memory(planned, case, hardware, split=split, offload=offload and not on_cpu)
    own = layout.world_size
    ranks = 2 * own if split else own
    waves = memory.waves
    memories = {name: memory.at(name) for name in _MOMENTS}
    if hardware.figures.peak(stage.precision) is None or hardware.figures.memory_bytes_per_s is None:
        moments = tuple(Moment(name=n, time_s=None, ranks=own, idle=None, memory=memories[n]) for n in _MOMENTS)
        return Iteration(moments, waves, None, None, ranks)
    times = _times(planned, case, hardware.figures, waves, split=split)
    if split:
        time_s = times["generate"][0] + times["score"][0] + max(times["critic"][0], times["actor"][0])
    else:
        time_s = sum(seconds for seconds, _ in times.values())
    busy_s = sum(seconds * share for seconds, share in times.values()) * own
    if split:  # both halves score, each half of the models
        busy_s += times["score"][0] * times["score"][1] * own
    moments = tuple(
        Moment(
            name=name,
            time_s=seconds,
            ranks=ranks if name == "score" else own,
            idle=1 - share * (ranks if name == "score" else own) / cluster_ranks,
            memory=memories[name],
        )
        for name, (seconds, share) in times.items()
    )
    return Iteration(moments, waves, time_s, 1 - busy_s / (time_s * cluster_ranks), ranks)


def _halved(layout: Layout, cluster_ranks: int) -> Layout:
    """The layout on half of the cluster: fewer data-parallel ranks, each with more micro-batches."""
    half = cluster_ranks // 2
    answers = layout.data * layout.micro_batches * layout.micro_batch
    width = layout.tensor * layout.context * layout.pipeline
    fitting = [n for n in range(1, layout.data + 1) if answers % (n * layout.micro_batch) == 0 and n * width <= half]
    data = max(fitting, default=1)
    group = max(n for n in range(1, layout.zero_group + 1) if data % n == 0)
    return msgspec.structs.replace(
        layout, data=data, zero_group=group, micro_batches=answers // data // layout.micro_batch
    )


# --- time ------------------------------------------------------------------------------------------------------------


def _times(
    stage: PpoStage, case: Case, hardware: HardwareFile, waves: int, *, split: bool
) -> dict[str, tuple[float, float]]:
    """Seconds of each moment, and the share of its ranks' time in which they are busy."""
    filled = replace(case, micro_batches=max(1, round(FILLED * case.micro_batches)))
    pretrained = stage.pretrain.share if stage.pretrain else 0.0
    mixed = replace(filled, micro_batches=max(1, round(filled.micro_batches * (1 + pretrained))))
    parts = parts_of(stage)
    scoring = tuple(replace(part, head=0) for part in parts)
    language = _forward(filled, parts, hardware)
    score = _forward(filled, scoring, hardware)
    critic, actor = step_time(filled, scoring, hardware), step_time(mixed, parts, hardware)
    scored = max(2 * language[0], 2 * score[0]) if split else 2 * language[0] + 2 * score[0]
    generated_s = _generate(stage, case, hardware, waves, language[0])
    return {
        "generate": (generated_s, 1 / stage.layout.pipeline),
        "score": (scored, (2 * language[0] * language[1] + 2 * score[0] * score[1]) / (scored * (2 if split else 1))),
        "critic": (stage.epochs * critic.time_s, 1 - critic.bubble),
        "actor": (stage.epochs * actor.time_s, 1 - actor.bubble),
    }


def _forward(case: Case, parts: tuple[Part, ...], hardware: HardwareFile) -> tuple[float, float]:
    """Seconds of a forward pass over an iteration's rows, and the busy share: a pipeline fills and drains."""
    pacer = Pacer(case, hardware, load_framework(case.framework).time)
    forward_s = [float(pacer.part(part).forward_s) for part in parts]
    m = float(case.micro_batches)
    span_s = sum(forward_s) + (m - 1) * max(forward_s)
    return span_s, m * sum(forward_s) / (len(parts) * span_s)


def _generate(stage: PpoStage, case: Case, hardware: HardwareFile, waves: int, forward_s: float) -> float:
    """Prompts in one pass, then token by token through all pipeline ranks, wave after wave."""
    layout, model = stage.layout, stage.model
    pacer = Pacer(case, hardware, load_framework(case.framework).time)
    rows = layout.micro_batches * layout.micro_batch / waves
    read_bytes = _ELEMENT_BYTES[stage.precision] * model.parameters / layout.tensor
    context = stage.sequence_length - stage.max_new_tokens / 2
    read_bytes += rows * context * _cache_bytes_per_token(stage)
    bandwidth = (hardware.memory_bytes_per_s or 1.0) * hardware.efficiency.memory[-1][1]
    peak = (hardware.peak(stage.precision) or 1.0) * hardware.efficiency.matmul[-1][1]
    computed_s = 2 * model.parameters / layout.tensor * rows / peak
    exchange = _ELEMENT_BYTES[stage.precision] * rows * model.hidden_size
    waited_s = 2 * model.layers * float(pacer.network.all_reduce(exchange, Group(layout.tensor)))
    launched_s = model.layers * _LAUNCHES * pacer.host_s
    token_s = max(read_bytes / bandwidth, computed_s, launched_s) + waited_s
    prompt = (stage.sequence_length - stage.max_new_tokens) / stage.sequence_length
    return waves * stage.max_new_tokens * token_s + prompt * forward_s


# --- memory ----------------------------------------------------------------------------------------------------------


def _cache_bytes_per_token(stage: PpoStage) -> float:
    """Keys and values of one token in all layers of a tensor rank."""
    model = stage.model
    width = 2 * model.kv_heads / stage.layout.tensor * model.head_size
    return model.layers * width * _ELEMENT_BYTES[stage.precision]


class _Memory:
    """What the fullest pipeline rank holds at each moment."""

    def __init__(self, stage: PpoStage, case: Case, hardware: Hardware, *, split: bool, offload: bool) -> None:
        self.stage, self.case, self.split, self.offload = stage, case, split, offload
        self.capacity_bytes = hardware.memory_bytes
        parts = parts_of(stage)
        self.part = max(parts, key=lambda part: part_parameters(case, part))
        self.critic_part = replace(self.part, head=0)
        self.trained = {"actor": estimate_rank_memory(case, self.part)}
        self.trained["critic"] = estimate_rank_memory(case, self.critic_part)
        self.waves = self._waves()

    def at(self, moment: str) -> RankMemory:
        """Everything of a moment: what works, and what waits beside it."""
        of = {"generate": ("actor",), "critic": ("critic",), "actor": ("actor",)}.get(moment, ("actor", "critic"))
        return max((self._memory(moment, model) for model in of), key=lambda memory: memory.total_bytes)

    def _memory(self, moment: str, model: str) -> RankMemory:
        trained = self.trained[model]
        training = moment in ("critic", "actor")
        weights, gradients, optimizer = self._resident(model, training)
        activations = dict(trained.activations) if training else self._working(moment, model)
        logits = trained.logits_bytes if training or model == "actor" else 0
        parts = {
            "parameters_bytes": weights,
            "gradients_bytes": gradients,
            "optimizer_bytes": optimizer,
            "activations_bytes": sum(activations.values()),
            "logits_bytes": logits if moment != "generate" else 0,
            "communication_bytes": trained.communication_bytes,
            "temporaries_bytes": trained.temporaries_bytes if training else 0,
            "framework_bytes": trained.framework_bytes,
        }
        return RankMemory(
            pipeline_rank=trained.pipeline_rank,
            activations=activations,
            total_bytes=sum(parts.values()),
            peak=f"{moment}: {trained.peak}" if training else moment,
            binds=max(parts, key=lambda name: parts[name]).removesuffix("_bytes"),
            **parts,
        )

    def _resident(self, model: str, training: bool) -> tuple[int, int, int]:
        """Weights, gradients and optimizer states that are on the device while this model works."""
        own = self.trained[model]
        if self.offload:
            kept = (own.gradients_bytes, own.optimizer_bytes) if training else (0, 0)
            return own.parameters_bytes, *kept
        models = [model] if self.split else ["actor", "critic"]
        weights = sum(2 * self.trained[each].parameters_bytes for each in models)  # each has its frozen twin
        gradients = sum(self.trained[each].gradients_bytes for each in models)
        optimizer = sum(self.trained[each].optimizer_bytes for each in models)
        return weights, gradients, optimizer

    def _working(self, moment: str, model: str) -> dict[str, int]:
        if moment == "generate":
            layers = self.part.layers / self.stage.model.layers
            rows = -(-self.stage.layout.micro_batches * self.stage.layout.micro_batch // self.waves)
            size = rows * self.stage.sequence_length * _cache_bytes_per_token(self.stage) * layers
            return {"keys and values": int(size)}
        # A forward pass without gradients holds one layer at a time: what full recomputation makes again of one.
        part = self.part if model == "actor" else self.critic_part
        forward = replace(self.case, recompute="full", recompute_layers=None, pipeline=1, micro_batches=1)
        kinds = estimate_rank_memory(forward, replace(part, layers=1, pipeline_rank=0)).activations
        return {"one layer": sum(kinds.values())}

    def _waves(self) -> int:
        """How often a rank has to generate until all of its answers are there."""
        rows = self.stage.layout.micro_batches * self.stage.layout.micro_batch
        if self.capacity_bytes is None:
            return 1
        self.waves = rows  # one row at a time, to see what one takes
        one = self._memory("generate", "actor")
        cache = one.activations_bytes
        free = _ROOM * self.capacity_bytes - (one.total_bytes - cache)
        at_once = max(1, int(free // max(1, cache)))
        return -(-rows // at_once)
