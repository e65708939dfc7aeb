"""What would make a layout fit, as the lines of a help."""

from dataclasses import replace
from typing import TYPE_CHECKING

from trainwright.compiler.figures import size
from trainwright.compiler.search.paste import toml_values
from trainwright.compiler.search.question import Question
from trainwright.spec.device import HardwareFile
from trainwright.spec.plan import Layout
from trainwright.spec.units import format_seconds

if TYPE_CHECKING:
    from trainwright.compiler.search.fixes import Fix

_MORE_NODES = (2, 4, 8, 16, 32, 64)


def advice(question: Question, device: HardwareFile, layout: Layout | None = None) -> str:
    """TOML lines for `[topology]` or the phase's own, each with its price; or how large a cluster would do.

    Prices of steps are relative to those of `layout`, if one is given.
    """
    from trainwright.compiler.search.fixes import fixes, step_s  # numpy comes with it

    found = fixes(question, device)
    if not found:
        return _no_layout(question, device)
    now_s = step_s(question, layout, device) if layout is not None else None
    lines = [toml_values(fix.changes) for fix in found]
    width = max(len(line) for line in lines)
    said = [f"{line:{width}}  # {_price(fix, now_s)}" for line, fix in zip(lines, found, strict=True)]
    return "\n".join(["any of these works, the fastest first:" if len(said) > 1 else "this works:", *said])


def _price(fix: "Fix", now_s: float | None) -> str:
    said = [size(fix.peak_bytes)]
    if fix.step_s is not None:
        step = f"{fix.step_s / now_s - 1:+.0%} step time" if now_s else f"~{format_seconds(fix.step_s)} a step"
        said.insert(0, step)
    if not fix.runnable:
        said.append("planned, but `run` cannot execute it yet")
    return ", ".join(said)


def _no_layout(question: Question, device: HardwareFile) -> str:
    from trainwright.compiler.search.fixes import any_fits

    for factor in _MORE_NODES:
        if any_fits(replace(question, nodes=factor * question.nodes), device):
            return f"no layout fits on this cluster; some do on `nodes = {factor * question.nodes}`"
    return "no layout fits on any cluster of these cards: take cards with more memory, or shorter sequences"
