"""What the page of a plan shows, section by section."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trainwright.compiler.draw import describe
from trainwright.compiler.figures import rounded, size
from trainwright.compiler.page.phase import PhaseView, phase_view
from trainwright.compiler.present.facts import axes, cluster, estimate_of, fullest_of, phases_of, totals, trained_of
from trainwright.compiler.present.iteration import iteration_views
from trainwright.compiler.present.plan import answers, closing
from trainwright.compiler.present.tables import interval, number, percent, seconds
from trainwright.compiler.review import Verdict
from trainwright.spec.look.graph import Node, draw_graph
from trainwright.spec.plan import Estimate, Hardware, Plan, TrainingStage

WIDE, NARROW = 1100, 360
SIGNS = {"run": "▸", "resume": "↻", "reuse": "✓"}


@dataclass(frozen=True)
class StageRow:
    """A stage in the table under the graph."""

    name: str
    kind: str
    does: str
    action: str
    reason: str
    fingerprint: str


@dataclass(frozen=True)
class CostRow:
    """A phase, or all of them, in figures; each `_range` is the interval in words, empty if there is none."""

    name: str
    time: str
    time_range: str
    gpu_hours: str
    energy: str
    cost: str
    cost_range: str
    layout: str = ""
    step: str = ""
    step_range: str = ""
    tokens_per_s: str = ""
    mfu: str = ""
    memory: str = ""


def context(plan: Plan, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """All names that the template uses."""
    said = {verdict.stage: verdict for verdict in verdicts}
    nodes = [_node(stage.name, stage.needs, said[stage.name], describe(stage)) for stage in plan.stages]
    links = plan.hardware.figures.links
    views: list[PhaseView] = [phase_view(phase, estimate_of(plan, phase.name), links) for phase in phases_of(plan)]
    return {
        "plan": plan,
        "headline": _headline(plan),
        "answers": answers(plan),
        "blocking": [notice for notice in plan.notices if notice.blocks],
        "notes": [notice for notice in plan.notices if not notice.blocks],
        "signs": SIGNS,
        "graph": [draw_graph(nodes, WIDE, "wide", down=False), draw_graph(nodes, NARROW, "narrow", down=True)],
        "stages": [
            StageRow(
                name=stage.name,
                kind=str(stage.__struct_config__.tag),
                does=describe(stage),
                action=said[stage.name].action,
                reason=said[stage.name].reason,
                fingerprint=stage.fingerprint,
            )
            for stage in plan.stages
        ],
        "closing": closing(verdicts),
        "phases": views,
        "hardware": _hardware(plan.hardware),
        "timed": any(estimate.step for estimate in plan.estimates),
        "costs": [*(_cost(stage, estimate_of(plan, stage.name)) for stage in trained_of(plan)), *_total(plan)],
        "iterations": iteration_views(plan),
    }


def _headline(plan: Plan) -> str:
    phases = phases_of(plan)
    tokens = rounded(sum(phase.tokens for phase in phases))
    model = phases[0].model
    several = "" if len(phases) == 1 else "s"
    return (
        f"{model.parameters:,} parameters · {tokens} tokens in {len(phases)} phase{several} · {phases[0].precision} · "
        f"{cluster(plan.hardware)}"
    )


def _hardware(hardware: Hardware) -> list[tuple[str, str]]:
    """What is known of the device, as the plan was priced with it."""
    figures = hardware.figures
    precisions = ("bf16", "fp16", "fp32", "fp8")
    peaks = [f"{peak / 1e12:,.4g} {name}" for name in precisions if (peak := getattr(figures.peak_flops, name))]
    links = [
        f"{link.bytes_per_s / 1e9:,.4g} GB/s {where}, {link.share:.0%} of it reached"
        for link, where in ((figures.links.device, "inside a node"), (figures.links.network, "between nodes"))
        if link is not None
    ]
    bandwidth = figures.memory_bytes_per_s
    facts = {
        "device": figures.name or hardware.name,
        "peak": f"{', '.join(peaks)} TFLOP/s, dense" if peaks else "",
        "memory": size(hardware.memory_bytes) if hardware.memory_bytes else "",
        "memory bandwidth": f"{bandwidth / 1e9:,.4g} GB/s" if bandwidth else "",
        "links": "; ".join(links),
        "power": f"{figures.power_watts:,.0f} W" if figures.power_watts else "",
        "price": f"{hardware.price_per_gpu_hour:,.2f} a GPU-hour" if hardware.price_per_gpu_hour is not None else "",
        "measured": f"{figures.measured.date} on {figures.measured.machine}" if figures.measured else "",
    }
    return [(key, value) for key, value in facts.items() if value]


def _node(name: str, needs: tuple[str, ...], verdict: Verdict, does: str) -> Node:
    below = f"{SIGNS[verdict.action]} {verdict.action}"
    title = f"{name}: {does}; {verdict.action}, {verdict.reason}"
    return Node(name=name, needs=needs, state=verdict.action, title=title, below=below)


def _cost(phase: TrainingStage, estimate: Estimate) -> CostRow:
    step = estimate.step
    return CostRow(
        name=phase.name,
        layout=axes(phase.layout),
        step=seconds(estimate.step_time_s),
        step_range=interval(seconds, step.low_s, step.high_s) if step else "",
        tokens_per_s=number(estimate.tokens_per_s),
        mfu=percent(estimate.mfu),
        memory=percent(fullest_of(estimate).share),
        time=seconds(estimate.duration_s),
        time_range=interval(seconds, estimate.duration_low_s, estimate.duration_high_s),
        gpu_hours=number(estimate.gpu_hours),
        energy=number(estimate.energy_kwh),
        cost=number(estimate.cost),
        cost_range=interval(number, estimate.cost_low, estimate.cost_high),
    )


def _total(plan: Plan) -> list[CostRow]:
    """The last row; none if there is one phase or a time is not known."""
    whole = totals(plan)
    if whole.duration_s is None or len(plan.estimates) == 1:
        return []
    time, cost = whole.duration_s, whole.cost
    return [
        CostRow(
            name="all",
            time=seconds(time.value),
            time_range=interval(seconds, time.low, time.high),
            gpu_hours=number(whole.gpu_hours),
            energy=number(whole.energy_kwh),
            cost=number(cost.value if cost else None),
            cost_range=interval(number, cost.low, cost.high) if cost else "",
        )
    ]
