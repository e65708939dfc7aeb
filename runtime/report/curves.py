"""The charts of pre-training: what was logged at every step, phases one after the other on one axis of tokens."""

from trainwright.runtime.report import quantity
from trainwright.runtime.report.charts import Chart
from trainwright.runtime.report.facts import RunFacts
from trainwright.runtime.report.tracks import Track, chart, in_a_row, keys, series
from trainwright.spec.plan import PhaseStage

BY_SOURCE = "train_loss_by_source/"


def loss_chart(facts: RunFacts) -> Chart | None:
    """Training loss, total and per source; None before the first step."""
    tracks = _tracks(facts)
    lines = [series("total", tracks, "train/loss")]
    lines += [series(key.removeprefix(BY_SOURCE), tracks, key) for key in keys(tracks, BY_SOURCE)]
    return chart("Training loss", "nats per token", tracks, lines, lambda value: f"{value:.3g}", log=True)


def small_charts(facts: RunFacts) -> list[Chart]:
    """Learning rate, gradient norm, throughput and waiting for data; only those that were logged."""
    tracks = _tracks(facts)
    world = [float(stage.layout.world_size) for stage in _phases(facts)]
    charts = [
        chart("Learning rate", "", tracks, [series("learning rate", tracks, "train/lr")], quantity.rate, zero=True),
        chart("Throughput", "tokens a second", tracks, [series("tokens a second", tracks, "perf/tgs", world)],
              zero=True),
        chart("Gradient norm", "before clipping", tracks, [series("gradient norm", tracks, "train/grad_norm")],
              log=True),
        chart("Waiting for data", "per cent of the step", tracks,
              [series("waiting for data", tracks, "perf/data_wait_pct")], zero=True),
    ]  # fmt: skip
    return [each for each in charts if each is not None]


def _phases(facts: RunFacts) -> list[PhaseStage]:
    return [stage for stage in facts.plan.stages if isinstance(stage, PhaseStage)]


def _tracks(facts: RunFacts) -> list[Track]:
    return in_a_row([(facts.curve(stage.name), stage.steps, stage.tokens_per_step) for stage in _phases(facts)])
