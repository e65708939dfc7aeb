"""A chart as the page holds it: drawn for wide and narrow pages, with its legend and the values behind it."""

import json
from collections.abc import Iterable
from dataclasses import dataclass

from markupsafe import Markup

from trainwright.runtime.report.charts import Chart, Series, draw, line_class

WIDE, HALF, NARROW = 1100, 534, 420


@dataclass(frozen=True)
class Figure:
    """A chart drawn for wide and narrow pages, and the values that its read-out tells."""

    title: str
    unit: str
    x: str
    half: bool
    svgs: tuple[Markup, ...]
    legend: tuple[tuple[str, str, str], ...]  # class of the line, name, newest value if there is one
    data: str  # JSON: [[name, [[x, y] or [x, y, note], ...]], ...]


def figure(chart: Chart, *, half: bool) -> Figure:
    """The chart in the sizes that the page switches between."""
    wide = draw(chart, HALF, 220, "wide") if half else draw(chart, WIDE, 380, "wide")
    return Figure(
        title=chart.title,
        unit=chart.y,
        x=chart.x,
        half=half,
        svgs=(wide, draw(chart, NARROW, 220 if half else 300, "narrow")),
        legend=tuple(
            (line_class(index), line.name, f"{line.points[-1][1]:.4g}" if chart.newest else "")
            for index, line in enumerate(chart.series)
        ),
        data=json.dumps([_values(line) for line in chart.series], separators=(",", ":"), ensure_ascii=False),
    )


def halves(charts: Iterable[Chart | None]) -> list[Figure]:
    """Those that there are, as small figures."""
    return [figure(chart, half=True) for chart in charts if chart is not None]


def _values(line: Series) -> list[object]:
    values: list[list[object]] = [[_short(x), float(f"{y:.5g}")] for x, y in line.points]
    for value, note in zip(values, line.notes, strict=False):
        value.append(note)
    return [line.name, values]


def _short(x: float) -> float:
    return round(x) if x == round(x) else float(f"{x:.5g}")
