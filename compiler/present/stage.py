"""One stage of a plan in depth, for a terminal."""

import msgspec
from rich.console import Console
from rich.text import Text

from trainwright.compiler.draw import describe
from trainwright.compiler.figures import rounded
from trainwright.compiler.present.facts import batch, cluster, estimate_of
from trainwright.compiler.present.groups import groups_of, layers_of, ranks_of, short_ranks
from trainwright.compiler.present.iteration import print_iteration, view
from trainwright.compiler.present.memory import print_memory
from trainwright.compiler.present.schedule import print_schedule
from trainwright.compiler.present.tables import pairs, table
from trainwright.compiler.present.time import print_time
from trainwright.compiler.present.words import checkpoints, kernels, layout, learning_rate, mixture
from trainwright.compiler.review import Verdict
from trainwright.spec.plan import AnyStage, PhaseStage, Plan, PpoStage, TrainingStage
from trainwright.spec.units import format_count

# Keys that `_head` shows, and those of a training stage that are shown in words or not at all.
_ELSEWHERE = frozenset(
    {
        "name",
        "kind",
        "needs",
        "fingerprint",
        "model",
        "learning_rate",
        "layout",
        "critic_layout",
        "placement",
    }
)


def present_stage(plan: Plan, verdict: Verdict, console: Console) -> None:
    """What the stage is, needs and does; of a phase also layout, memory, time and schedule."""
    stage = plan.stage(verdict.stage)
    rows = _head(plan, stage, verdict)
    rows += _phase(plan, stage) if isinstance(stage, PhaseStage) else _values(stage)
    if isinstance(stage, TrainingStage) and not isinstance(stage, PhaseStage):
        rows += [("learning rate", learning_rate(stage.learning_rate)), ("layout", layout(stage))]
    console.print(Text.assemble((stage.name, "bold"), f" of {plan.name}: {describe(stage)}"))
    console.print(pairs(rows))
    if isinstance(stage, PhaseStage):
        _print_placement(plan, stage, console)
    if isinstance(stage, TrainingStage):
        estimate = estimate_of(plan, stage.name)
        print_memory(estimate, console)
        print_time(plan, estimate, console)
    if isinstance(stage, PhaseStage):
        print_schedule(stage, estimate, console)
    elif isinstance(stage, PpoStage):
        print_iteration(view(estimate), console)


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
        ("reads", f"{rounded(phase.tokens)} tokens: {mixture(phase, estimate_of(plan, phase.name).passes)}"),
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
        *([("kernels", kernels(phase))] if phase.operators else []),
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
