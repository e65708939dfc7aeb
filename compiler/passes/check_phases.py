"""Each phase's numbers go together: whole sequences in a step, whole steps in a phase, a learning rate that is one."""

from collections.abc import Iterator

from trainwright.compiler.chain import curve_of, owner_of, start_of
from trainwright.compiler.draft import Check, Draft
from trainwright.compiler.nearest import either
from trainwright.spec.diagnostics import Diagnostic, KeyPath
from trainwright.spec.learning_rate import LearningRate
from trainwright.spec.units import Seconds, Steps, format_count, interval


def check_phases(draft: Draft) -> Iterator[Diagnostic]:
    steps = []
    for index in range(len(draft.spec.phases)):
        found = list(_tokens(draft, index))
        yield from found
        steps.append(0 if found else _steps(draft, index))
    for index, phase in enumerate(draft.spec.phases):
        if owner_of(draft.spec.phases, index, "learning_rate") is None:
            yield Diagnostic(
                "TW243",
                f"phase `{phase.name}` has no learning rate, and there is no phase before it to take one from",
                draft.key_at("phases", index),
                "add `learning_rate = { peak = 3e-4 }`",
            )
        elif phase.learning_rate is not None:
            curve = curve_of(draft.spec.phases, index)
            length = sum(steps[place] for place in curve) if all(steps[place] for place in curve) else None
            yield from _curve(draft, ("phases", index, "learning_rate"), phase.learning_rate, length)
    yield from _branches(draft)
    every = interval(draft.spec.run.checkpoint.every)
    if every in (Steps(0), Seconds(0.0)):
        where = draft.value_at("run", "checkpoint", "every")
        yield Diagnostic(
            "TW246", "checkpoints `every` nothing would never be saved", where, 'write `every = "500 steps"`'
        )


def _steps(draft: Draft, index: int) -> int:
    owner = owner_of(draft.spec.phases, index, "tokens_per_step")
    tokens_per_step = draft.spec.phases[owner].tokens_per_step if owner is not None else None
    return draft.spec.phases[index].tokens // tokens_per_step if tokens_per_step else 0


def _tokens(draft: Draft, index: int) -> Iterator[Diagnostic]:
    phase = draft.spec.phases[index]
    owner = owner_of(draft.spec.phases, index, "tokens_per_step")
    per_step = draft.spec.phases[owner].tokens_per_step if owner is not None else None
    if owner is None or per_step is None:
        yield Diagnostic(
            "TW240",
            f"phase `{phase.name}` has no `tokens_per_step`, and there is no phase before it to take one from",
            draft.key_at("phases", index),
            'add `tokens_per_step`, the tokens of one optimizer step over all ranks; InternLM2 took about "4Mi"',
        )
        return
    length = phase.sequence_length
    if per_step % length:
        near = [count for count in (per_step // length * length, -(-per_step // length) * length) if count]
        key = "tokens_per_step" if owner == index else "sequence_length"
        yield Diagnostic(
            "TW241",
            f"`tokens_per_step` {per_step:,} is not a whole number of sequences of {length:,} tokens",
            draft.value_at("phases", index, key),
            f"the nearest `tokens_per_step` that work are {either(near)}",
            draft.label(f"{per_step:,} tokens a step", "phases", owner, "tokens_per_step") if owner != index else (),
        )
    elif phase.tokens < per_step:
        yield Diagnostic(
            "TW242",
            f"`tokens` {phase.tokens:,} do not fill one step of {per_step:,}",
            draft.value_at("phases", index, "tokens"),
            f'take at least "{format_count(per_step)}", or make the step smaller',
            draft.label(f"{per_step:,} tokens a step", "phases", owner, "tokens_per_step"),
        )


def _curve(draft: Draft, path: KeyPath, rate: LearningRate, length: int | None) -> Iterator[Diagnostic]:
    if rate.final is not None and rate.final > rate.peak:
        yield Diagnostic(
            "TW245",
            f"`final` {rate.final:g} is above `peak` {rate.peak:g}, so the rate would rise",
            draft.value_at(*path, "final"),
            f"a tenth of the peak is usual: {rate.peak / 10:g}",
        )
    warmup = interval(rate.warmup)
    where = draft.value_at(*path, "warmup")
    if isinstance(warmup, Seconds):
        message = f'`warmup = "{rate.warmup}"` is a time, but the curve runs over steps'
        yield Diagnostic("TW246", message, where, 'write it in steps, for example "2000 steps"')
    elif length is not None and warmup.steps >= length:
        message = f"a warm-up of {warmup.steps:,} steps leaves nothing of a curve of {length:,}"
        cure = (
            f"a hundredth is usual: {length // 100:,} steps" if length >= 200 else "shorten it, or train for more steps"
        )
        yield Diagnostic("TW244", message, where, cure)


def _branches(draft: Draft) -> Iterator[Diagnostic]:
    """Two phases that both carry on one curve would give it two ends."""
    phases = draft.spec.phases
    continued: dict[int, int] = {}
    for index, phase in enumerate(phases):
        start = start_of(phases, index)
        if start is None or phase.learning_rate is not None:
            continue
        if start in continued:
            other = phases[continued[start]].name
            yield Diagnostic(
                "TW247",
                f"`{phase.name}` and `{other}` both carry on the learning rate of `{phases[start].name}`",
                draft.key_at("phases", index),
                f"give `{phase.name}` a `learning_rate` of its own",
            )
        continued.setdefault(start, index)


CHECK_PHASES = Check(check_phases, needs=("spec.phases", "spec.run", "names are sound"), holds="phases are sound")
