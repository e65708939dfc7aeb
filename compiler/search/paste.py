"""Chosen layouts as TOML that can be pasted into the spec."""

from typing import Any

from trainwright.compiler.search.result import Search
from trainwright.spec.auto import AUTO_KEYS
from trainwright.spec.expect import literal
from trainwright.spec.plan import Layout
from trainwright.spec.topology import Topology


def toml_values(values: dict[str, Any]) -> str:
    """Values as TOML writes them on one line."""
    return ", ".join(f"{key} = {literal(value)}" for key, value in values.items())


def chosen_values(layout: Layout, topology: Topology) -> dict[str, Any]:
    """What to write in place of each free value, so that nothing is left to search for."""
    said = {key: getattr(layout, key) for key in AUTO_KEYS if getattr(topology, key) == "auto"}
    for key in ("data", "schedule"):  # they follow from the others
        said.pop(key, None)
    if layout.zero == 0:
        said.pop("zero_group", None)
    if layout.sequence_parallel == (layout.tensor > 1):
        said.pop("sequence_parallel", None)
    return said


def to_paste(search: Search) -> str:
    """One `[topology]` if all phases have the same, else a line for each phase."""
    values = {
        found.question.phase: chosen_values(search.choices[index].candidate.layout, found.question.topology)
        for index, found in search.phases.items()
        if index in search.choices
    }
    first = next(iter(values.values()), {})
    if all(each == first for each in values.values()):
        return "\n".join(["[topology]", *(f"{key} = {literal(value)}" for key, value in first.items())])
    lines = []
    for phase, each in values.items():
        lines += [f"# in the phase `{phase}`", f"topology = {{ {toml_values(each)} }}"]
    return "\n".join(lines)
