"""What would make a layout fit, as the lines of a help."""

from dataclasses import replace

from trainwright.compiler.figures import size
from trainwright.compiler.search.paste import toml_values
from trainwright.compiler.search.question import Question
from trainwright.spec.device import HardwareFile
from trainwright.spec.plan import Layout

_MORE_NODES = (2, 4, 8, 16, 32, 64)


def advice(question: Question, layout: Layout, device: HardwareFile) -> str:
    """TOML lines for `[topology]` or the phase's own, each with its price; or how large a cluster would do."""
    from trainwright.compiler.search.fixes import fixes, step_s  # numpy comes with it

    found = fixes(question, layout, device)
    if not found:
        return _no_layout(question, device)
    now_s = step_s(question, layout, device)
    lines = [toml_values(fix.changes) for fix in found]
    width = max(len(line) for line in lines)
    notes = []
    for fix in found:
        note = size(fix.peak_bytes)
        if fix.step_s is not None and now_s is not None:
            note = f"{fix.step_s / now_s - 1:+.0%} step time, {note}"
        notes.append(note if fix.runnable else f"{note}; planned, not yet run")
    said = [f"{line:{width}}  # {note}" for line, note in zip(lines, notes, strict=True)]
    return "\n".join(
        ["any of these makes it fit, the fastest first:" if len(said) > 1 else "this makes it fit:", *said]
    )


def _no_layout(question: Question, device: HardwareFile) -> str:
    from trainwright.compiler.search.fixes import any_fits

    for factor in _MORE_NODES:
        if any_fits(replace(question, nodes=factor * question.nodes), device):
            return f"no layout fits on this cluster; some do on `nodes = {factor * question.nodes}`"
    return "no layout fits on any cluster of these cards: take cards with more memory, or shorter sequences"
