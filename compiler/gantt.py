"""A pipeline's timeline as lines of text, legible without colour: one row a rank, time to the right.

    pp 0  0░1░2░3░·······0▓▓▓4░1▓▓▓5░ ⋯ 7▓▓▓   20%

A step that is too long for the width shows how it begins and how it ends, at one scale.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rich.text import Text

from trainwright.compiler.cost.schedule import Task, Timeline
from trainwright.spec.units import format_seconds

_GLYPHS = {"F": "░", "B": "▓", "W": "▒"}
_STYLES = {"F": "cyan", "B": "green", "W": "magenta"}
_WORDS = {"F": "forward", "B": "backward", "W": "weights"}
_IDLE, _GAP = "·", " ⋯ "
_READABLE = 2  # columns of the shortest forward pass from which a step is drawn whole
_WIDEST = 3  # columns that it is given where the step is not drawn whole
_MOST_RANKS = 16


@dataclass(frozen=True, slots=True)
class _Window:
    """A stretch of the step, as `columns` characters."""

    start_s: float
    columns: int
    columns_per_s: float

    def column(self, time_s: float) -> int:
        """Of a moment, held to the window."""
        return min(max(round((time_s - self.start_s) * self.columns_per_s), 0), self.columns)


def gantt_lines(timeline: Timeline, width: int) -> list[Text]:
    """An axis, a row for each pipeline rank with its idle share, and a legend, in `width` columns (40 or more).

    Raises ValueError if nothing takes time: then there is nothing to draw.
    """
    if timeline.span_s <= 0:
        raise ValueError("a pipeline whose passes take no time cannot be drawn")
    label = len(f"pp {timeline.pipeline - 1}")
    windows = _windows(timeline, max(width - label - 7, 20))
    lines = [Text(" " * (label + 2)) + _axis(timeline, windows)]
    shown = _shown_ranks(timeline.pipeline)
    ranks = timeline.by_rank()
    for rank in shown:
        if rank is None:
            lines.append(Text(f"  ⋮  {timeline.pipeline - len(shown) + 1} more ranks", "dim"))
            continue
        row = Text(f"pp {rank}".ljust(label) + "  ")
        row += Text(_GAP, "dim").join(_cells(ranks[rank], window, timeline.chunks) for window in windows)
        lines.append(row + Text(f"{timeline.idle_s[rank] / timeline.span_s:5.0%}"))
    return [*lines, *_legend(timeline, windows)]


def _windows(timeline: Timeline, columns: int) -> list[_Window]:
    """The whole step if it can be read in so many columns, else its beginning and its end."""
    whole = columns / timeline.span_s
    shortest_s = min((time for time in map(_forward_s, timeline.tasks) if time), default=timeline.span_s)
    filled_s = next(task.end_s for task in timeline.tasks if task.kind == "B")  # the first of rank 0
    half = (columns - len(_GAP)) // 2
    scale = min(_WIDEST / shortest_s, half / filled_s)
    if whole >= min(_READABLE / shortest_s, scale):
        return [_Window(0.0, columns, whole)]
    return [_Window(0.0, half, scale), _Window(timeline.span_s - half / scale, half, scale)]


def _forward_s(task: Task) -> float:
    return task.end_s - task.start_s if task.kind == "F" else 0.0


def _shown_ranks(pipeline: int) -> list[int | None]:
    """All ranks, or the first and the last with None between."""
    if pipeline <= _MOST_RANKS:
        return list(range(pipeline))
    half = _MOST_RANKS // 2
    return [*range(half), None, *range(pipeline - half, pipeline)]


def _cells(tasks: Iterable[Task], window: _Window, chunks: int) -> Text:
    """One rank in one window. A pass too short for a column is left out, one too short for its number has none."""
    cells = Text()
    for task in tasks:
        start, end = max(window.column(task.start_s), len(cells)), window.column(task.end_s)
        if end <= start:
            continue
        cells.append(_IDLE * (start - len(cells)), "dim")
        number = f"{task.micro_batch}{chr(ord('a') + task.chunk) if chunks > 1 else ''}"
        begins = window.start_s <= task.start_s
        text = number if begins and len(number) < end - start else ""
        cells.append(text.ljust(end - start, _GLYPHS[task.kind]), _STYLES[task.kind])
    return cells.append(_IDLE * (window.columns - len(cells)), "dim")


def _axis(timeline: Timeline, windows: list[_Window]) -> Text:
    total = sum(window.columns for window in windows) + len(_GAP) * (len(windows) - 1)
    last = format_seconds(timeline.span_s)
    return Text("0 s" + last.rjust(total - 3) + " idle", "dim")


def _legend(timeline: Timeline, windows: list[_Window]) -> Iterator[Text]:
    kinds = {task.kind for task in timeline.tasks}
    glyphs = Text()
    for kind in (kind for kind in _GLYPHS if kind in kinds):
        glyphs.append(_GLYPHS[kind], _STYLES[kind]).append(f" {_WORDS[kind]}  ")
    yield glyphs.append(_IDLE, "dim").append(" idle")
    yield Text("digits: micro-batch, letters: chunk" if timeline.chunks > 1 else "digits: micro-batch")
    if len(windows) > 1:
        left_s = windows[1].start_s - windows[0].columns / windows[0].columns_per_s
        yield Text(f"⋯ {format_seconds(left_s)} left out")
