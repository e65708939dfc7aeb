"""The learning rate as a pure function of the plan and the step."""

import math

from trainwright.spec.plan import LearningRatePlan


def learning_rate(plan: LearningRatePlan, step: int) -> float:
    """The rate of the phase's step `step`, counted from 0.

    Linear warm-up peak (t + 1) / warmup_steps, then from peak to `final` at `decay_steps` along half a cosine or a
    line; t = offset + step, so a curve may span several phases. `constant` stays at the peak.
    """
    t = plan.offset + step
    if t < plan.warmup_steps:
        return plan.peak * (t + 1) / plan.warmup_steps
    if plan.decay == "constant":
        return plan.peak
    done = min(1.0, (t - plan.warmup_steps) / max(1, plan.decay_steps - plan.warmup_steps))
    left = 0.5 * (1.0 + math.cos(math.pi * done)) if plan.decay == "cosine" else 1.0 - done
    return plan.final + (plan.peak - plan.final) * left
