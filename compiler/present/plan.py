"""A plan as tables for a terminal of 100 columns."""

import re
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from trainwright.compiler.cost.time import bubble
from trainwright.compiler.draw import describe
from trainwright.compiler.figures import flops, rough, rounded, size
from trainwright.compiler.present.tables import UNKNOWN
from trainwright.compiler.review import Verdict
from trainwright.spec.plan import Estimate, Layout, PhaseStage, Plan, RankMemory
from trainwright.spec.units import format_count, format_seconds

_ACTION_STYLES = {"run": "bold cyan", "resume": "bold yellow", "reuse": "green"}
OURS = "ours"


def present_plan(plan: Plan, verdicts: Sequence[Verdict], console: Console) -> None:
    """The whole plan: summary, stages, phases, layouts, memory, time, assumptions, notices."""
    console.print(_summary(plan))
    console.print(_stages(plan, verdicts))
    console.print(_phases(plan))
    console.print(_layouts(plan))
    console.print(_memory(plan))
    console.print(_time(plan))
    if plan.assumptions:
        console.print(_assumptions(plan))
    for notice in plan.notices:
        mark = Text("blocks run: " if notice.blocks else "note: ", style="bold red" if notice.blocks else "bold")
        console.print(mark + Text(f"{notice.key}: {notice.message}"), soft_wrap=False)
    console.print(_closing(verdicts))


# --- pieces of a plan ------------------------------------------------------------------------------------------------


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)


def _summary(plan: Plan) -> Text:
    phases = _phase_stages(plan)
    model = phases[0].model
    hardware = plan.hardware
    ranks = hardware.nodes * hardware.gpus_per_node
    noun = ("process" if ranks == 1 else "processes") if hardware.device == "cpu" else ("GPU" if ranks == 1 else "GPUs")
    shape = f"{hardware.nodes:,} x {hardware.gpus_per_node:,} {hardware.name}" if ranks > 1 else hardware.name
    sizes = f"{model.layers} layers, hidden {model.hidden_size:,}, {model.heads}/{model.kv_heads} heads, "
    sizes += f"MLP {model.ffn_size:,}, vocabulary {model.vocab_size:,}"
    tokens = rounded(sum(phase.tokens for phase in phases))
    return Text.assemble(
        (plan.name, "bold"),
        f"\n{model.parameters:,} parameters ",
        (f"({sizes})", "dim"),
        f"\n{tokens} tokens in {len(phases)} phase{'' if len(phases) == 1 else 's'}, {phases[0].precision}",
        f", on {shape}: {ranks:,} {noun}",
    )


def _stages(plan: Plan, verdicts: Sequence[Verdict]) -> Table:
    table = _table("Stages")
    table.add_column("stage", no_wrap=True)
    table.add_column("does", overflow="fold")
    table.add_column("will", no_wrap=True)
    table.add_column("because", overflow="fold")
    said = {verdict.stage: verdict for verdict in verdicts}
    for stage in plan.stages:
        verdict = said[stage.name]
        action = Text(verdict.action, style=_ACTION_STYLES[verdict.action])
        table.add_row(stage.name, escape(describe(stage)), action, escape(verdict.reason))
    return table


def _phases(plan: Plan) -> Table:
    table = _table("Phases")
    for name in ("phase", "tokens", "steps", "tokens/step", "sequence", "RoPE base", "learning rate"):
        table.add_column(name, justify="left" if name == "phase" else "right", no_wrap=True)
    for phase in _phase_stages(plan):
        table.add_row(
            phase.name,
            rounded(phase.tokens),
            f"{phase.steps:,}",
            format_count(phase.tokens_per_step),
            f"{phase.sequence_length:,}",
            f"{phase.rope_base:,.0f}",
            _learning_rate(phase),
        )
    return table


def _learning_rate(phase: PhaseStage) -> str:
    """`peak -> final`, or where on a curve that an earlier phase began this phase starts."""
    rate = phase.learning_rate
    if rate.offset:
        return f"on from {rate.offset:,}"
    return f"{rate.peak:g} → {rate.final:g}" if rate.decay != "constant" else f"{rate.peak:g}"


def _layouts(plan: Plan) -> Table:
    table = _table("Layouts")
    table.add_column("phase", no_wrap=True)
    table.add_column("axes", no_wrap=True)
    for name in ("ZeRO-1 over", "recompute", "schedule"):
        table.add_column(name)
    table.add_column("a step's sequences", justify="right", no_wrap=True)
    for phase in _phase_stages(plan):
        layout = phase.layout
        batch = f"{layout.data:,} ranks x {layout.micro_batches:,} x {layout.micro_batch:,}" if layout.data > 1 else ""
        table.add_row(
            phase.name,
            _axes(layout),
            f"{layout.zero_group:,} ranks" if layout.zero and layout.data > 1 else UNKNOWN,
            layout.recompute,
            layout.schedule if layout.pipeline > 1 else UNKNOWN,
            f"{phase.sequences_per_step:,} = {batch or f'{layout.micro_batches:,} x {layout.micro_batch:,}'}",
        )
    return table


def _axes(layout: Layout) -> str:
    """The axes wider than one; DP alone if there is none."""
    axes = {"TP": layout.tensor, "CP": layout.context, "PP": layout.pipeline, "VPP": layout.virtual_pipeline}
    parts = [f"{name} {size}" for name, size in (*axes.items(), ("DP", layout.data)) if size > 1]
    if layout.sequence_parallel:
        parts.insert(1, "SP")
    return ", ".join(parts) or "one process"


def _memory(plan: Plan) -> Table:
    table = _table("Memory per rank (model states exact; activations and logits rough)")
    for name in ("phase", "rank", "weights", "gradients", "optimizer", "activations", "logits", "total", "card"):
        table.add_column(name, justify="left" if name == "phase" else "right", no_wrap=True)
    for estimate in plan.estimates:
        for place, memory in enumerate(estimate.memory):
            rank = f"pp {memory.pipeline_rank}" if len(estimate.memory) > 1 else "each"
            table.add_row(estimate.stage if place == 0 else "", rank, *_sizes(memory), _share(memory, estimate))
    return table


def _sizes(memory: RankMemory) -> list[str]:
    exact = (memory.parameters_bytes, memory.gradients_bytes, memory.optimizer_bytes)
    estimated = (memory.activations_bytes, memory.logits_bytes)
    sizes = [size(each) for each in exact] + [f"~{size(each)}" if each else UNKNOWN for each in estimated]
    return [*sizes, f"~{size(memory.total_bytes)}"]


def _share(memory: RankMemory, estimate: Estimate) -> str:
    return UNKNOWN if estimate.capacity_bytes is None else f"{memory.total_bytes / estimate.capacity_bytes:.0%}"


def _time(plan: Plan) -> Table:
    table = _table("Compute (FLOPs exact; time, MFU and cost rough: 10 to 20 %)")
    for name in ("phase", "FLOPs/token", "bubble", "step", "tokens/s", "MFU", "time", "GPU-hours", "cost"):
        table.add_column(name, justify="left" if name == "phase" else "right", no_wrap=True)
    layouts = {phase.name: phase.layout for phase in _phase_stages(plan)}
    for estimate in plan.estimates:
        table.add_row(
            estimate.stage,
            flops(estimate.model_flops_per_token),
            f"{bubble(layouts[estimate.stage]):.1%}",
            *_times(estimate),
        )
    known = [estimate for estimate in plan.estimates if estimate.duration_s is not None]
    if known and len(known) == len(plan.estimates) > 1:
        table.add_section()
        costs = [estimate.cost for estimate in known if estimate.cost is not None]
        table.add_row(
            "all",
            *[""] * 5,
            f"~{format_seconds(sum(estimate.duration_s or 0.0 for estimate in known))}",
            rough(sum(estimate.gpu_hours or 0.0 for estimate in known)),
            rough(sum(costs)) if costs else UNKNOWN,
        )
    where = "no peak is known of this device, so no time" if not known else None
    table.caption = "; ".join(part for part in (plan.flops_convention, where) if part)
    table.caption_justify = "left"
    return table


def _times(estimate: Estimate) -> list[str]:
    if estimate.step_time_s is None or estimate.duration_s is None:
        return [UNKNOWN] * 6
    return [
        f"~{format_seconds(estimate.step_time_s)}",
        rough(estimate.tokens_per_s or 0.0),
        f"~{estimate.mfu or 0:.0%}",
        f"~{format_seconds(estimate.duration_s)}",
        rough(estimate.gpu_hours or 0.0),
        UNKNOWN if estimate.cost is None else rough(estimate.cost),
    ]


def _assumptions(plan: Plan) -> Table:
    """Where nobody wrote a value. Plain defaults of ours are counted only: `show` lists every one."""
    table = _table("Assumed")
    table.add_column("key", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("because", overflow="fold")
    told: dict[tuple[str, str], list[str]] = {}
    for each in plan.assumptions:
        if each.why != OURS:
            told.setdefault((re.sub(r"\[\d+\]", "[]", each.key), each.why), []).append(each.value)
    for (key, why), values in told.items():
        shown = values[0] if len(set(values)) == 1 else ", ".join(values)
        table.add_row(escape(key), escape(shown), escape(why))
    rest = [each.key for each in plan.assumptions if each.why == OURS]
    if rest:
        table.caption = f"and {len(rest)} defaults of ours: {', '.join(rest)}"
        table.caption_justify = "left"
    return table


def _closing(verdicts: Sequence[Verdict]) -> str:
    counts = {action: sum(verdict.action == action for verdict in verdicts) for action in _ACTION_STYLES}
    if counts["run"] + counts["resume"] == 0:
        return "Nothing to do: every stage has its result."
    return "Plan: " + ", ".join(f"{count} to {action}" for action, count in counts.items() if count) + "."


# --- words for figures -----------------------------------------------------------------------------------------------


def _phase_stages(plan: Plan) -> list[PhaseStage]:
    return [stage for stage in plan.stages if isinstance(stage, PhaseStage)]
