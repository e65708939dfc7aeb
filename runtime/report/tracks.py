"""Stages one after the other on one axis, and lines drawn through all of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trainwright.runtime.report import quantity
from trainwright.runtime.report.charts import Chart, Mark, Point, Series, thin
from trainwright.runtime.report.facts import Curve


@dataclass(frozen=True)
class Track:
    """One stage's stretch of the axis, from `start`; a step is `per_step` long."""

    name: str
    curve: Curve
    start: int
    per_step: int
    steps: int

    @property
    def end(self) -> int:
        return self.start + self.steps * self.per_step

    def points(self, key: str, factor: float, axis: int) -> tuple[Point, ...]:
        """The values times the factor, as many as can be told apart on an axis of that length."""
        values = self.curve.values(key)
        share = (self.end - self.start) / axis if axis else 1.0
        return thin([(self.start + step * self.per_step, value * factor) for step, value in values], share)


def in_a_row(stages: Sequence[tuple[Curve, int, int]]) -> list[Track]:
    """The tracks of these stages: each one's curve, its steps, and how long a step is on the axis."""
    tracks: list[Track] = []
    for curve, steps, per_step in stages:
        tracks.append(Track(curve.stage, curve, tracks[-1].end if tracks else 0, per_step, steps))
    return tracks


def keys(tracks: Sequence[Track], prefix: str) -> list[str]:
    """All names of metrics that begin so, sorted."""
    return sorted({key for track in tracks for row in track.curve.rows for key in row if key.startswith(prefix)})


def series(name: str, tracks: Sequence[Track], key: str, factors: Sequence[float] | None = None) -> Series:
    """One line through all tracks; `factors` scale each one's values."""
    scale = factors or [1.0] * len(tracks)
    pieces = tuple(track.points(key, factor, tracks[-1].end) for track, factor in zip(tracks, scale, strict=True))
    return Series(name, tuple(piece for piece in pieces if piece))


def chart(
    title: str,
    unit: str,
    tracks: Sequence[Track],
    lines: Sequence[Series],
    show_y: Callable[[float], str] = quantity.short,
    *,
    x: str = "tokens",
    log: bool = False,
    zero: bool = False,
) -> Chart | None:
    """None if nothing of it was logged. `log`: if all values allow it; `zero`: the axis begins there."""
    drawn = tuple(line for line in lines if line.pieces)
    if not drawn:
        return None
    positive = all(y > 0 for line in drawn for _, y in line.points)
    return Chart(
        title=title,
        x=x,
        y=unit,
        series=drawn,
        marks=tuple(Mark(track.start, track.name) for track in tracks),
        x_end=tracks[-1].end,
        show_x=quantity.short,
        show_y=show_y,
        scale="log" if log and positive else "linear",
        from_zero=zero,
    )
