"""Line charts as SVG, drawn here so that the page needs no script: axes, ticks, phase boundaries.

A chart is drawn twice, wide and narrow, because text in a scaled SVG shrinks with it; the page shows the one that fits.
Colours and fonts are the page's (`page.css`), which tells the lines apart by their classes (`line_class`).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup, escape

from trainwright.runtime.report.quantity import linear_ticks, log_ticks

Point = tuple[float, float]
_BUCKETS = 600  # more points than this, times two, no screen shows
_LEFT, _RIGHT, _BOTTOM, _TOP, _ROW = 48, 10, 36, 10, 15
_LETTER_PX = 6.6  # width of a letter at the page's 12 px, on the safe side


@dataclass(frozen=True)
class Series:
    """A line in pieces: between pieces (phases) the pen is up. `notes`: what the read-out adds to each point."""

    name: str
    pieces: tuple[tuple[Point, ...], ...]
    notes: tuple[str, ...] = ()

    @property
    def points(self) -> list[Point]:
        return [point for piece in self.pieces for point in piece]


@dataclass(frozen=True)
class Mark:
    """A stretch of the x axis that starts at `x` and has a name: a phase."""

    x: float
    name: str


@dataclass(frozen=True)
class Chart:
    """What is drawn; the first series is in ink, the others in colours. `y` labels the axis and says its unit.

    `path`: the order of a line's points means something, so a ring stands where it begins and a dot where it ends.
    `newest`: a line's last point is the newest, so the legend says its value.
    """

    title: str
    x: str
    y: str
    series: tuple[Series, ...]
    marks: tuple[Mark, ...]
    x_end: float
    show_x: Callable[[float], str]
    show_y: Callable[[float], str]
    scale: Literal["linear", "log"] = "linear"
    from_zero: bool = False
    x_start: float = 0.0
    path: bool = False
    newest: bool = True


@dataclass(frozen=True)
class Axis:
    """Maps [low, high] to pixels [start, end]."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def place(self, value: float) -> float:
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = math.log(low), math.log(high), math.log(value)
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    def ticks(self, target: int) -> list[float]:
        return (log_ticks if self.log else linear_ticks)(self.low, self.high, target)


def y_range(chart: Chart) -> tuple[float, float]:
    """The lowest and highest value on the y axis, with a little air; never empty."""
    values = [y for series in chart.series for _, y in series.points]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if chart.scale == "log":
        low, high = (low, high) if high > low else (low / 2, high * 2)
        air = (high / low) ** 0.04
        return low / air, high * air
    low = min(low, 0.0) if chart.from_zero else low
    if high == low:
        return (low, low + 1) if low == 0 else (low - abs(low) / 2, high + abs(high) / 2)
    air = (high - low) * 0.05
    return (low if chart.from_zero and low == 0 else low - air), high + air


def draw(chart: Chart, width: int, height: int, css: str) -> Markup:
    """The chart as an `<svg>` of that size in CSS pixels, with the extra class `css`."""
    rows = _mark_rows(chart, width)
    top = _TOP + _ROW * (max(rows, default=-1) + 1)
    low, high = y_range(chart)
    x_axis = _x_axis(chart, width)
    y_axis = Axis(low, high, height - _BOTTOM, top, log=chart.scale == "log")
    parts = [
        *_grid(chart, x_axis, y_axis, width, height),
        *(_mark(mark, row, x_axis, height - _BOTTOM, width) for mark, row in zip(chart.marks, rows, strict=True)),
        *(
            _line(series, index, x_axis, y_axis, chart.path)
            for index, series in reversed(list(enumerate(chart.series)))
        ),
    ]
    frame = f"{x_axis.start:g} {x_axis.end:g} {y_axis.start:g} {y_axis.end:g}"
    return Markup(
        '<svg class="chart {}" viewBox="0 0 {} {}" role="img" aria-label="{}" data-frame="{}" data-x="{:.9g} {:.9g}">'
        "{}</svg>"
    ).format(css, width, height, chart.title, frame, x_axis.low, x_axis.high, Markup("").join(parts))


def line_class(index: int) -> str:
    """The CSS class of a chart's line: ink, then eight colours, then the same eight dashed."""
    if index == 0:
        return "s0"
    return f"s{(index - 1) % 8 + 1}" + (" dashed" if index > 8 else "")


def thin(piece: Sequence[Point], share: float = 1.0) -> tuple[Point, ...]:
    """Of each of 600 equal buckets the lowest and the highest point, so that no spike is lost: some 1,200 at most.

    `share`: of the axis that the piece takes, and so of the buckets.
    """
    buckets = max(1, round(_BUCKETS * share))
    if len(piece) <= 2 * buckets:
        return tuple(piece)
    kept: list[Point] = [piece[0]]
    for index in range(buckets):
        bucket = piece[index * len(piece) // buckets : (index + 1) * len(piece) // buckets]
        extremes = {min(bucket, key=lambda point: point[1]), max(bucket, key=lambda point: point[1])}
        kept += sorted(extremes - {kept[-1]})
    return tuple(kept if kept[-1] == piece[-1] else [*kept, piece[-1]])


def _x_axis(chart: Chart, width: int) -> Axis:
    return Axis(chart.x_start, chart.x_end or 1.0, _LEFT, width - _RIGHT)


def _line(series: Series, index: int, x_axis: Axis, y_axis: Axis, path: bool) -> Markup:
    lines = []
    for piece in series.pieces:
        places = [f"{x_axis.place(x):.1f},{y_axis.place(y):.1f}" for x, y in piece]
        if len(places) == 1:
            x, y = places[0].split(",")
            lines.append(Markup('<circle cx="{}" cy="{}" r="2"/>').format(x, y))
        elif places:
            lines.append(Markup('<polyline points="{}"/>').format(" ".join(places)))
            if path:
                for place, css in ((places[0], "begin"), (places[-1], "end")):
                    x, y = place.split(",")
                    lines.append(Markup('<circle class="{}" cx="{}" cy="{}" r="4"/>').format(css, x, y))
    return Markup('<g class="line {}" data-series="{}"><title>{}</title>{}</g>').format(
        line_class(index), index, series.name, Markup("").join(lines)
    )


def _grid(chart: Chart, x_axis: Axis, y_axis: Axis, width: int, height: int) -> list[Markup]:
    parts = []
    for tick in y_axis.ticks(max(4, (height - _BOTTOM) // 36)):
        y = y_axis.place(tick)
        parts.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(_LEFT, width - _RIGHT, y, y)
        )
        parts.append(_text(_LEFT - 7, y + 4, chart.show_y(tick), "end"))
    bottom = height - _BOTTOM
    parts.append(
        Markup('<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(_LEFT, width - _RIGHT, bottom, bottom)
    )
    for tick in x_axis.ticks(max(4, width // 90)):
        x, text = x_axis.place(tick), chart.show_x(tick)
        if x + len(text) * _LETTER_PX / 2 < width:
            parts.append(
                Markup('<line class="axis" x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}"/>').format(x, x, bottom, bottom + 4)
            )
            parts.append(_text(x, bottom + 17, text, "middle"))
    parts.append(_text((_LEFT + width - _RIGHT) / 2, height - 3, chart.x, "middle", "label"))
    return parts


def _mark_rows(chart: Chart, width: int) -> list[int]:
    """Above the plot, the row of each mark's name: names that would touch stand one above the other, newest lowest."""
    axis = _x_axis(chart, width)
    rows: list[int] = []
    free: list[float] = []  # where each row is free again
    for mark in chart.marks:
        start, end = _name_span(mark, axis, width)
        row = next((index for index, edge in enumerate(free) if edge <= start), len(free))
        free[row : row + 1] = [end]
        rows.append(row)
    return rows


def _name_span(mark: Mark, axis: Axis, width: int) -> tuple[float, float]:
    length = len(mark.name) * _LETTER_PX + 8
    start = min(axis.place(mark.x), width - length)
    return start, start + length


def _mark(mark: Mark, row: int, axis: Axis, bottom: float, width: int) -> Markup:
    x, baseline = axis.place(mark.x), _TOP + 3 + _ROW * row
    start, _ = _name_span(mark, axis, width)
    text = _text(start + 4, baseline, mark.name, "start", "phase")
    if mark.x == 0:
        return text
    return text + Markup('<line class="boundary" x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}"/>').format(
        x, x, baseline - 9, bottom
    )


def _text(x: float, y: float, text: str, anchor: str, css: str = "tick") -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
        css, x, y, anchor, escape(text)
    )
