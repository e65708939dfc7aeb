"""Points stand where their values say, and ticks are round."""

import re

import pytest

from trainwright.runtime.report.charts import Axis, Chart, Mark, Series, draw, line_class, thin, y_range
from trainwright.runtime.report.quantity import count, duration, error, linear_ticks, log_ticks, rate, short, size


def chart(*series: Series, **changes) -> Chart:
    values = {
        "title": "Loss",
        "x": "tokens",
        "y": "nats",
        "marks": (),
        "x_end": 100.0,
        "show_x": short,
        "show_y": short,
    }
    return Chart(series=series, **(values | changes))


def frame(svg: str, name: str) -> list[float]:
    return [float(word) for word in re.search(rf'data-{name}="([^"]+)"', svg)[1].split()]


def points(svg: str) -> list[tuple[float, float]]:
    return [tuple(map(float, pair.split(","))) for pair in re.search(r'points="([^"]+)"', svg)[1].split()]


def test_points_are_placed_linearly() -> None:
    line = chart(Series("total", (((0, 4.0), (50, 2.0), (100, 3.0)),)))
    svg = draw(line, 400, 200, "wide")
    left, right, bottom, top = frame(svg, "frame")
    low, high = y_range(line)
    for (x, y), (px, py) in zip([(0, 4.0), (50, 2.0), (100, 3.0)], points(svg), strict=True):
        assert px == pytest.approx(left + x / 100 * (right - left), abs=0.06)
        assert py == pytest.approx(bottom + (y - low) / (high - low) * (top - bottom), abs=0.06)


def test_equal_ratios_are_equally_far_on_a_log_axis() -> None:
    svg = draw(chart(Series("total", (((0, 8.0), (50, 4.0), (100, 2.0)),)), scale="log"), 400, 200, "wide")
    (_, a), (_, b), (_, c) = points(svg)
    assert b - a == pytest.approx(c - b, abs=0.11)
    assert c > b > a  # a lower loss stands lower


def test_pieces_are_not_joined_and_a_single_point_is_a_dot() -> None:
    svg = draw(chart(Series("total", (((0, 1.0), (10, 2.0)), ((20, 5.0),)))), 400, 200, "wide")
    assert svg.count("<polyline") == 1
    assert svg.count("<circle") == 1


@pytest.mark.parametrize("values", [(3.0, 3.0), (0.0, 0.0), (-1.0, -1.0)])
def test_a_flat_line_is_drawn(values: tuple[float, float]) -> None:
    line = chart(Series("flat", (tuple(enumerate(values)),)), from_zero=True)
    low, high = y_range(line)
    assert low < high
    assert "nan" not in draw(line, 400, 200, "wide")


def test_names_of_narrow_phases_do_not_overlap() -> None:
    marks = (Mark(0, "short"), Mark(90, "long"), Mark(95, "enhance"))
    svg = draw(chart(Series("total", (((0, 1.0), (100, 2.0)),)), marks=marks), 300, 200, "narrow")
    names = {
        m[3]: (float(m[1]), float(m[2]))
        for m in re.finditer(r'<text class="phase" x="([\d.]+)" y="([\d.]+)"[^>]*>(\w+)', svg)
    }
    assert names["short"][1] == names["long"][1] or names["short"][0] + 40 > names["long"][0]
    assert names["enhance"][1] > names["long"][1]
    assert names["enhance"][0] < 300 - 7 * 6


def test_thinning_keeps_the_ends_and_every_spike() -> None:
    line = [(float(x), 1.0) for x in range(50_000)]
    line[31_337] = (31_337.0, 99.0)
    thinned = thin(line)
    assert len(thinned) <= 1202
    assert (31_337.0, 99.0) in thinned
    assert (thinned[0], thinned[-1]) == (line[0], line[-1])
    assert list(thinned) == sorted(thinned)
    assert thin(line[:1000]) == tuple(line[:1000])
    assert len(thin(line, 0.1)) <= 122  # a tenth of the axis has a tenth of the points


@pytest.mark.parametrize(
    ("low", "high", "target", "ticks"),
    [(0, 100, 5, [0, 20, 40, 60, 80, 100]), (0, 0.0031, 4, [0, 0.001, 0.002, 0.003]), 
     (2.2, 2.9, 4, [2.2, 2.4, 2.6, 2.8])],
)  # fmt: skip
def test_linear_ticks(low: float, high: float, target: int, ticks: list[float]) -> None:
    assert linear_ticks(low, high, target) == pytest.approx(ticks)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(1.9, 6.3, [2, 2.5, 3, 4, 5, 6]), (0.35, 2.4, [0.4, 0.5, 0.6, 0.8, 1, 2]), (1e-6, 1e3, [1e-6, 1e-4, 1e-2, 1, 100]),
     (3.1, 3.4, [3.1, 3.15, 3.2, 3.25, 3.3, 3.35, 3.4])],
)  # fmt: skip
def test_log_ticks_are_round(low: float, high: float, ticks: list[float]) -> None:
    assert log_ticks(low, high, 8) == pytest.approx(ticks)


def test_axis_ends_stand_at_its_pixels() -> None:
    axis = Axis(1.0, 100.0, 40.0, 440.0, log=True)
    assert (axis.place(1.0), axis.place(10.0), axis.place(100.0)) == pytest.approx((40.0, 240.0, 440.0))


def test_line_classes_repeat_dashed_after_eight_colours() -> None:
    assert [line_class(index) for index in (0, 1, 8, 9)] == ["s0", "s1", "s8", "s1 dashed"]


def test_quantities() -> None:
    assert (count(491_520), count(2_340_000_000_000), count(None)) == ("491,520", "2.34T", "–")
    assert (size(512), size(2_400_000), size(80 * 2**30)) == ("512 B", "2.29 MiB", "80 GiB")
    assert [duration(s) for s in (0.004, 2.5, 42, 252, 11_100, 1_051_200)] == [
        "4.0 ms", "2.5 s", "42 s", "4 min 12 s", "3 h 05 min", "12 d 4 h",
    ]  # fmt: skip
    assert [error(pct) for pct in (20.4, -3.2, 0.2, None)] == ["+20 %", "−3 %", "0 %", ""]
    assert [rate(value) for value in (3e-4, 2.5e-5, 0)] == ["3e-4", "2.5e-5", "0"]
    assert [short(value) for value in (480_000, 1_889_110_016, 0.25, 0)] == ["480K", "1.89B", "0.25", "0"]
