"""What each phase does, once all that it takes over from earlier phases is written out."""

from trainwright.compiler.chain import curve_of, owner_of, start_of
from trainwright.compiler.draft import Draft, Pass, PhaseCourse
from trainwright.spec.plan import LearningRatePlan
from trainwright.spec.units import Steps, interval

ROPE_BASE = 10_000.0  # Su et al. 2021, arXiv 2104.09864


def resolve_phases(draft: Draft) -> None:
    """Steps are whole: what `tokens` holds beyond them is not trained on.

    A learning-rate curve runs over the phase that states it and all that carry it on; each phase gets the part from
    `offset`, the steps of the curve before it.
    """
    phases = draft.spec.phases
    per_step = [_inherited(draft, index, "tokens_per_step") for index in range(len(phases))]
    steps = [phase.tokens // int(tokens) for phase, tokens in zip(phases, per_step, strict=True)]
    courses = []
    for index, phase in enumerate(phases):
        start = start_of(phases, index)
        owner = owner_of(phases, index, "rope_base")
        courses.append(
            PhaseCourse(
                start_from=phases[start].name if start is not None else None,
                tokens_per_step=int(per_step[index]),
                steps=steps[index],
                sequences_per_step=int(per_step[index]) // phase.sequence_length,
                rope_base=ROPE_BASE if owner is None else _inherited(draft, index, "rope_base"),
                learning_rate=_learning_rate(draft, index, steps),
            )
        )
    draft.courses = tuple(courses)


def _inherited(draft: Draft, index: int, key: str) -> float:
    owner = owner_of(draft.spec.phases, index, key)
    if owner is None:
        raise RuntimeError(f"phase {index} has no `{key}`: check_phases let it pass")
    value: float = getattr(draft.spec.phases[owner], key)
    return value


def _learning_rate(draft: Draft, index: int, steps: list[int]) -> LearningRatePlan:
    phases = draft.spec.phases
    owner = owner_of(phases, index, "learning_rate")
    rate = phases[owner].learning_rate if owner is not None else None
    if owner is None or rate is None:
        raise RuntimeError(f"phase {index} has no learning rate: check_phases let it pass")
    warmup = interval(rate.warmup)
    if not isinstance(warmup, Steps):
        raise RuntimeError(f"the warm-up of phase {index} is a time: check_phases let it pass")
    curve = curve_of(phases, owner)
    return LearningRatePlan(
        peak=rate.peak,
        final=rate.final if rate.final is not None else rate.peak / 10,
        warmup_steps=warmup.steps,
        decay=rate.decay,
        decay_steps=sum(steps[place] for place in curve),
        offset=sum(steps[place] for place in curve if place < index),
    )


RESOLVE_PHASES = Pass(resolve_phases, needs=("spec.phases", "names are sound", "phases are sound"), gives=("courses",))
