"""One stage of a plan in depth, for a terminal."""

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from trainwright.compiler.draw import describe
from trainwright.compiler.figures import rounded
from trainwright.compiler.present.facts import axes, batch, cluster, estimate_of
from trainwright.compiler.present.groups import groups_of, layers_of, ranks_of, short_ranks
from trainwright.compiler.present.memory import print_memory
from trainwright.compiler.present.schedule import print_schedule
from trainwright.compiler.present.tables import table
from trainwright.compiler.present.time import print_time
from trainwright.compiler.review import Verdict
from trainwright.spec.plan import AnyStage, CheckpointPlan, Layout, LearningRatePlan, PhaseStage, Plan
from trainwright.spec.units import format_count, format_seconds

_ELSEWHERE = frozenset({"name", "kind", "needs", "fingerprint"})  # keys that `_head` shows


def present_stage(plan: Plan, verdict: Verdict, console: Console) -> None:
    """What the stage is, needs and does; of a phase also layout, memory, time and schedule."""
    stage = plan.stage(verdict.stage)
    rows = _head(plan, stage, verdict)
    rows += _phase(plan, stage) if isinstance(stage, PhaseStage) else _values(stage)
    console.print(Text.assemble((stage.name, "bold"), f" of {plan.name}: {describe(stage)}"))
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for key, value in rows:
        grid.add_row(escape(key), escape(value))
    console.print(grid)
    if isinstance(stage, PhaseStage):
        estimate = estimate_of(plan, stage.name)
        _print_placement(plan, stage, console)
        print_memory(estimate, console)
        print_time(plan, estimate, console)
        print_schedule(stage, estimate, console)


def learning_rate(rate: LearningRatePlan) -> str:
    """The curve in words: `0.0003 to 3e-05, cosine over 557,899 steps after 2,000 of warm-up`."""
    peak = f"{rate.peak:g}" if rate.decay == "constant" else f"{rate.peak:g} to {rate.final:g}"
    warmup = f", {rate.warmup_steps:,} of them warm-up" if rate.warmup_steps else ""
    offset = f"; on from step {rate.offset:,} of the curve" if rate.offset else ""
    return f"{peak}, {rate.decay} over {rate.decay_steps:,} steps{warmup}{offset}"


def mixture(phase: PhaseStage) -> str:
    """Sources by share, the largest first."""
    shares = sorted(phase.mixture.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {share:.3g}" for name, share in shares)


def layout(phase: PhaseStage) -> str:
    """Axes, ZeRO, recomputation and schedule."""
    own = phase.layout
    parts = [axes(own)]
    if own.zero and own.data > 1:
        parts.append(f"ZeRO-{own.zero} over {own.zero_group:,} ranks")
    parts.append(f"recompute {_recomputed(own)}")
    if own.pipeline > 1:
        parts.append(f"schedule {own.schedule}")
    if own.context > 1:
        parts.append(f"context parallelism by {own.context_exchange.replace('_', '-')}")
    if own.weight > 1:
        parts.append(f"weights cut over {own.weight:,} ranks")
    if own.offload:
        parts.append(f"{' and '.join(own.offload)} in host memory")
    if own.keep_gathered:
        parts.append("gathered inputs kept")
    return "; ".join(parts)


def _recomputed(layout: Layout) -> str:
    if layout.recompute == "selective" and layout.recompute_modules:
        return f"selective ({', '.join(layout.recompute_modules)})"
    if layout.recompute == "full" and layout.recompute_layers is not None:
        return f"full for the first {layout.recompute_layers} layers of each chunk"
    return layout.recompute


def checkpoints(plan: CheckpointPlan) -> str:
    """When one is written and how many are kept."""
    when = [f"every {plan.every_steps:,} steps"] if plan.every_steps else []
    when += [f"every {format_seconds(plan.every_seconds)}"] if plan.every_seconds else []
    return f"{' or '.join(when) or 'at the end'}, the newest {plan.keep} kept"


def _head(plan: Plan, stage: AnyStage, verdict: Verdict) -> list[tuple[str, str]]:
    users = [each.name for each in plan.stages if stage.name in each.needs]
    rows = [("will", f"{verdict.action}: {verdict.reason}")]
    rows += [("needs", ", ".join(stage.needs))] if stage.needs else []
    rows += [("feeds", ", ".join(users))] if users else []
    return [*rows, ("fingerprint", stage.fingerprint)]


def _phase(plan: Plan, phase: PhaseStage) -> list[tuple[str, str]]:
    optimizer = phase.optimizer
    betas = ", ".join(f"{beta:g}" for beta in optimizer.betas)
    begins = f"from the last checkpoint of {phase.start_from}" if phase.start_from else f"from seed {phase.seed}"
    return [
        ("starts", begins),
        ("reads", f"{rounded(phase.tokens)} tokens: {mixture(phase)}"),
        ("steps", f"{phase.steps:,} of {format_count(phase.tokens_per_step)} tokens, {batch(phase)}"),
        ("sequences", f"{phase.sequence_length:,} tokens, RoPE base {phase.rope_base:,.0f}"),
        ("learning rate", learning_rate(phase.learning_rate)),
        (
            "optimizer",
            f"{optimizer.kind}, betas {betas}, eps {optimizer.eps:g}, weight decay {optimizer.weight_decay:g}, "
            f"clip {optimizer.clip:g}",
        ),
        ("checkpoints", checkpoints(phase.checkpoint)),
        ("runs on", cluster(plan.hardware)),
        ("layout", layout(phase)),
    ]


def _values(stage: AnyStage) -> list[tuple[str, str]]:
    """A stage's own values as they stand in the plan; of sources their names."""
    plain = msgspec.to_builtins(stage)
    return [(key, _shown(value)) for key, value in plain.items() if key not in _ELSEWHERE and value is not None]


def _shown(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(str(each["name"]) if isinstance(each, dict) else str(each) for each in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(each)}" for key, each in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def _print_placement(plan: Plan, phase: PhaseStage, console: Console) -> None:
    groups = groups_of(phase, plan.hardware.figures.links)
    if groups:
        made = table("\nRanks that work together", "axis", "does", "first group", right=("size", "groups"))
        made.add_column("links")
        for each in groups:
            ranks = short_ranks(each.first)
            made.add_row(each.axis, each.does, ranks, f"{each.size:,}", f"{each.count:,}", each.where)
        console.print(made)
    if phase.layout.pipeline > 1:
        made = table("\nWhere the model lies", "pipeline rank", "holds", "ranks", "nodes")
        for rank in range(phase.layout.pipeline):
            own = ranks_of(phase, rank)
            nodes = sorted({own[0] // phase.placement.ranks_per_node, own[-1] // phase.placement.ranks_per_node})
            where = "–".join(f"{node:,}" for node in nodes)
            made.add_row(f"pp {rank}", layers_of(phase, rank), f"{own[0]:,}–{own[-1]:,}", where)
        console.print(made)
