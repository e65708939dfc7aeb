"""A phase's values in words, for the terminal and the page."""

from collections.abc import Mapping, Sequence

from trainwright.compiler.present.facts import axes
from trainwright.spec.plan import CheckpointPlan, Layout, LearningRatePlan, PhaseStage, TrainingStage
from trainwright.spec.units import format_seconds


def learning_rate(rate: LearningRatePlan) -> str:
    """The curve in words: `0.0003 to 3e-05, cosine over 557,899 steps after 2,000 of warm-up`."""
    peak = f"{rate.peak:g}" if rate.decay == "constant" else f"{rate.peak:g} to {rate.final:g}"
    warmup = f", {rate.warmup_steps:,} of them warm-up" if rate.warmup_steps else ""
    offset = f"; on from step {rate.offset:,} of the curve" if rate.offset else ""
    return f"{peak}, {rate.decay} over {rate.decay_steps:,} steps{warmup}{offset}"


def mixture(phase: PhaseStage, passes: Mapping[str, float]) -> str:
    """Sources by share, the largest first, and how often their text is read where that can be told."""
    shares = sorted(phase.mixture.items(), key=lambda item: -item[1])
    often = {name: f" (about {count:.2g} times)" for name, count in passes.items()}
    return ", ".join(f"{name} {share:.3g}{often.get(name, '')}" for name, share in shares)


def layout(phase: TrainingStage) -> str:
    """Axes, ZeRO, recomputation and schedule."""
    own = phase.layout
    parts = [axes(own)]
    if own.zero and own.data > 1:
        parts.append(f"ZeRO-{own.zero} over {own.zero_group:,} ranks")
    parts.append(f"recompute {_recomputed(own)}")
    if own.pipeline > 1:
        parts.append(f"schedule {own.schedule}")
    if own.context > 1:
        heads = f"heads between {own.context_heads:,} ranks, then " if own.context_heads > 1 else ""
        parts.append(f"context parallelism by {heads}{own.context_exchange.replace('_', '-')}")
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


def kernels(stage: TrainingStage) -> str:
    """Operators by what runs them: `attention by portable, flash-attn or sdpa; rms_norm and rope by torch`."""
    by: dict[tuple[str, ...], list[str]] = {}
    for operator, names in stage.operators.items():
        by.setdefault(names, []).append(operator)
    told = "; ".join(f"{_list(operators, 'and')} by {_list(names, 'or')}" for names, operators in by.items())
    return told + ("; of several the first that can run there" if any(len(names) > 1 for names in by) else "")


def _list(words: Sequence[str], last: str) -> str:
    return f" {last} ".join([*([", ".join(words[:-1])] if len(words) > 1 else []), words[-1]])


def checkpoints(plan: CheckpointPlan) -> str:
    """When one is written and how many are kept."""
    when = [f"every {plan.every_steps:,} steps"] if plan.every_steps else []
    when += [f"every {format_seconds(plan.every_seconds)}"] if plan.every_seconds else []
    return f"{' or '.join(when) or 'at the end'}, the newest {plan.keep} kept"
