"""A phase's memory for a terminal: a bar of letters and a row of figures for each pipeline rank, and what binds."""

from rich.console import Console
from rich.text import Text

from trainwright.compiler.figures import size
from trainwright.compiler.present.facts import TERMS, fullest_of
from trainwright.compiler.present.tables import UNKNOWN, bar, percent, table
from trainwright.spec.plan import Estimate, RankMemory

_STYLES = {"P": "blue", "G": "cyan", "O": "magenta", "A": "yellow", "L": "red", "C": "green", "T": "white", "F": "dim"}
_HEADS = ("params", "grads", "optim", "activ", "logits", "comm", "temp", "frame")
_UNITS = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))


def print_memory(estimate: Estimate, console: Console) -> None:
    """What each pipeline rank needs at its peak, by term; activations by kind on the fullest."""
    full = fullest_of(estimate)
    whole = max(full.memory.total_bytes, estimate.capacity_bytes or 0)
    label = max(len(_rank(estimate, each)) for each in estimate.memory)
    width = console.width - label - 7
    console.print(Text("\nMemory per rank at its peak", "bold"))
    for memory in estimate.memory:
        line = Text(f"{_rank(estimate, memory):>{label}} ") + stacked(memory, whole, width)
        share = memory.total_bytes / estimate.capacity_bytes if estimate.capacity_bytes else None
        console.print(line + Text(f" {percent(share):>5}"))
    legend = [
        Text.assemble((letter, _STYLES[letter]), f"={name}")
        for letter, name, amount in TERMS
        if any(amount(memory) for memory in estimate.memory)
    ]
    console.print(Text("  ").join([*legend, Text("·=free")] if estimate.capacity_bytes else legend))
    console.print(_table(estimate, whole))
    place = "each rank" if len(estimate.memory) == 1 else _rank(estimate, full.memory)
    total = size(full.memory.total_bytes)
    console.print(Text(f"Peak: {total} on {place}, {full.memory.peak}. Most of it is {full.memory.binds}."))
    if len(full.memory.activations) > 1:
        console.print(_activations(full.memory, place, console.width))


def stacked(memory: RankMemory, whole_bytes: int, width: int) -> Text:
    """The rank's terms as letters, `width` columns for `whole_bytes`; what is free as dots."""
    line, end, done = Text(), 0, 0
    for letter, _, amount in TERMS:
        end += amount(memory)
        # At least one letter for what is there, as long as there is room.
        upto = min(max(round(end / whole_bytes * width), done + (amount(memory) > 0)), width)
        line += Text(letter * (upto - done), _STYLES[letter])
        done = upto
    return line + Text("·" * (width - done), "dim")


def unit_of(size_bytes: int) -> tuple[str, int]:
    """The binary unit in which so many bytes have at least one digit before the point, and its size."""
    for name, factor in _UNITS:
        if size_bytes >= factor:
            return name, factor
    return _UNITS[-1]


def in_unit(size_bytes: int, factor: int) -> str:
    """Three digits: `28.8`, `0.17`; a dash for nothing."""
    value = size_bytes / factor
    if size_bytes == 0:
        return UNKNOWN
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _table(estimate: Estimate, whole_bytes: int) -> object:
    name, factor = unit_of(whole_bytes)
    made = table(f"\nIn {name}", right=("", *_HEADS, "total"))
    for memory in estimate.memory:
        figures = [in_unit(amount(memory), factor) for _, _, amount in TERMS]
        made.add_row(_rank(estimate, memory), *figures, Text(in_unit(memory.total_bytes, factor), "bold"))
    return made


def _activations(memory: RankMemory, rank: str, width: int) -> object:
    made = table(f"\nActivations by kind, {rank}", "kind", right=("bytes", "share"))
    made.add_column("", no_wrap=True)
    for kind, amount in sorted(memory.activations.items(), key=lambda item: -item[1]):
        share = amount / memory.activations_bytes if memory.activations_bytes else 0.0
        made.add_row(kind, size(amount), percent(share), bar(share, min(40, width - 50), _STYLES["A"]))
    return made


def _rank(estimate: Estimate, memory: RankMemory) -> str:
    return f"pp {memory.pipeline_rank}" if len(estimate.memory) > 1 else "each"
