"""The charts of a run: what was logged at every step, phases one after the other on one axis of tokens."""

from collections.abc import Callable
from dataclasses import dataclass

from trainwright.runtime.report import quantity
from trainwright.runtime.report.charts import Chart, Mark, Point, Series, thin
from trainwright.runtime.report.facts import Curve, RunFacts
from trainwright.spec.plan import PhaseStage

_BY_SOURCE = "train_loss_by_source/"


@dataclass(frozen=True)
class _Track:
    """One phase's place on the axis of tokens."""

    stage: PhaseStage
    curve: Curve
    start: int

    def points(self, key: str, factor: float = 1.0) -> tuple[Point, ...]:
        tokens = self.stage.tokens_per_step
        return thin([(self.start + step * tokens, value * factor) for step, value in self.curve.values(key)])


def loss_chart(facts: RunFacts) -> Chart | None:
    """Training loss, total and per source; None before the first step."""
    tracks = _tracks(facts)
    sources = sorted({key for track in tracks for row in track.curve.rows for key in row if key.startswith(_BY_SOURCE)})
    series = [_series("total", tracks, "train/loss")]
    series += [_series(key.removeprefix(_BY_SOURCE), tracks, key) for key in sources]
    return _chart("Training loss", "nats per token", tracks, series, lambda value: f"{value:.3g}", log=True)


def small_charts(facts: RunFacts) -> list[Chart]:
    """Learning rate, gradient norm, throughput and waiting for data; only those that were logged."""
    tracks = _tracks(facts)
    world = [float(track.stage.layout.world_size) for track in tracks]
    charts = [
        _chart("Learning rate", "", tracks, [_series("learning rate", tracks, "train/lr")], quantity.rate, zero=True),
        _chart("Throughput", "tokens a second", tracks, [_series("tokens a second", tracks, "perf/tgs", world)],
               quantity.short, zero=True),
        _chart("Gradient norm", "before clipping", tracks, [_series("gradient norm", tracks, "train/grad_norm")],
               quantity.short, log=True),
        _chart("Waiting for data", "per cent of the step", tracks,
               [_series("waiting for data", tracks, "perf/data_wait_pct")], quantity.short, zero=True),
    ]  # fmt: skip
    return [chart for chart in charts if chart is not None]


def _tracks(facts: RunFacts) -> list[_Track]:
    curves = {curve.stage: curve for curve in facts.curves}
    tracks, start = [], 0
    for stage in facts.plan.stages:
        if isinstance(stage, PhaseStage):
            tracks.append(_Track(stage, curves[stage.name], start))
            start += stage.steps * stage.tokens_per_step
    return tracks


def _series(name: str, tracks: list[_Track], key: str, factors: list[float] | None = None) -> Series:
    """One line through all phases; `factors` scale each phase's values."""
    scale = factors or [1.0] * len(tracks)
    pieces = tuple(track.points(key, factor) for track, factor in zip(tracks, scale, strict=True))
    return Series(name, tuple(piece for piece in pieces if piece))


def _chart(
    title: str,
    unit: str,
    tracks: list[_Track],
    series: list[Series],
    show_y: Callable[[float], str],
    *,
    log: bool = False,
    zero: bool = False,
) -> Chart | None:
    drawn = tuple(line for line in series if line.pieces)
    if not drawn:
        return None
    positive = all(y > 0 for line in drawn for _, y in line.points)
    return Chart(
        title=title,
        x="tokens",
        y=unit,
        series=drawn,
        marks=tuple(Mark(track.start, track.stage.name) for track in tracks),
        x_end=sum(track.stage.steps * track.stage.tokens_per_step for track in tracks),
        show_x=quantity.short,
        show_y=show_y,
        scale="log" if log and positive else "linear",
        from_zero=zero,
    )
