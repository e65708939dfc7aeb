"""Quantities mean exactly what they say, and a wrong unit names the right ones."""

import pytest

from trainwright.spec import units
from trainwright.spec.units import Seconds, Steps, UnitError


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        ("2.34T", "tokens", 2_340_000_000_000),
        ("0.1T", "tokens", 100_000_000_000),
        ("4Mi", "tokens", 1 << 22),
        ("4M", "tokens", 4_000_000),
        ("4Ki tokens", "tokens", 4096),
        ("24.4B", "tokens", 24_400_000_000),
        ("200k", "tokens", 200_000),
        ("9007199254740993", "tokens", 2**53 + 1),
        ("1e12", "tokens", 10**12),
        (2.34e12, "tokens", 2_340_000_000_000),
        (4096, "count", 4096),
        (" 1_000 k ", "count", 1_000_000),
        ("80GiB", "bytes", 80 << 30),
        ("80GB", "bytes", 80_000_000_000),
        ("100", "bytes", 100),
        ("30min", "seconds", 1800.0),
        ("40d", "seconds", 3_456_000.0),
        ("1.5 h", "seconds", 5400.0),
        ("250ms", "seconds", 0.25),
        ("200Gb/s", "bandwidth", 25e9),
        ("25GB/s", "bandwidth", 25e9),
        ("50000 gpu-hours", "gpu-hours", 50_000.0),
        ("50k gpu-hours", "gpu-hours", 50_000.0),
    ],
)
def test_reads(value: int | float | str, unit: str, expected: int | float) -> None:
    read = units.quantity(value, unit)
    assert read == expected
    assert type(read) is type(expected)


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        ("4MiB", "tokens", "k, M, B, T and Ki, Mi, Gi, Ti"),
        ("80gib", "bytes", 'did you mean "80GiB"?'),
        ("200gbps", "bandwidth", "Gb/s"),
        ("8 minutes", "seconds", "min, h, d"),
        ("50000", "gpu-hours", "gpu-hours"),
        ("2,000", "tokens", '"2_000"'),
    ],
)
def test_a_wrong_unit_says_which_are_accepted(value: str, unit: str, said: str) -> None:
    with pytest.raises(UnitError) as caught:
        units.quantity(value, unit)
    assert caught.value.cure is not None
    assert said in caught.value.cure


@pytest.mark.parametrize("value", ["1.0001k", "0.5", 0.5, "1e-3"])
def test_a_part_of_a_token_is_refused(value: str | float) -> None:
    with pytest.raises(units.NotWholeError):
        units.quantity(value, "tokens")


@pytest.mark.parametrize("value", ["", "abc", "T", "--1", "1.2.3.4", "٣"])
def test_what_is_no_number_is_refused(value: str) -> None:
    with pytest.raises(UnitError):
        units.quantity(value, "tokens")


@pytest.mark.parametrize(
    ("value", "read", "written"),
    [
        ("500 steps", Steps(500), "500 steps"),
        ("1 step", Steps(1), "1 steps"),
        ("2k steps", Steps(2000), "2000 steps"),
        (500, Steps(500), "500 steps"),
        ("500", Steps(500), "500 steps"),
        ("0 steps", Steps(0), "0 steps"),
        ("30min", Seconds(1800.0), "1800 s"),
        ("0.5s", Seconds(0.5), "0.5 s"),
    ],
)
def test_intervals(value: int | str, read: Steps | Seconds, written: str) -> None:
    assert units.interval(value) == read
    assert units.canonical_interval(value) == written
    assert units.interval(written) == read


@pytest.mark.parametrize("value", ["-1 steps", "0.5 steps", "0 s", "-1h", "5 epochs", "steps"])
def test_intervals_that_are_none(value: str) -> None:
    with pytest.raises(UnitError):
        units.interval(value)


@pytest.mark.parametrize(
    ("count", "written"),
    [
        (2_340_000_000_000, "2.34T"),
        (1 << 22, "4Mi"),
        (24_400_000_000, "24.4B"),
        (1024, "1Ki"),
        (92_544, "92,544"),
        (2_598_392_299_520, "2,598,392,299,520"),
    ],
)
def test_counts_are_written_exactly(count: int, written: str) -> None:
    assert units.format_count(count) == written
    assert units.quantity(written.replace(",", ""), "count") == count


def test_sizes_and_durations_read_well() -> None:
    assert units.format_bytes(80 << 30) == "80 GiB"
    assert units.format_bytes(1500) == "1.46 KiB"
    assert [units.format_seconds(s) for s in (0.25, 59.94, 75, 7200, 93_784)] == [
        "250 ms",
        "59.9 s",
        "1 min 15 s",
        "2 h",
        "1 d 2 h",
    ]
