"""Quantities as people write them: "2.34T", "4Mi", "80GiB", "30min", "200Gb/s", "500 steps".

Arithmetic is exact (fractions), so "0.1T" is 100,000,000,000 and nothing else. k, M, G, T are powers of 1000 and
Ki, Mi, Gi, Ti powers of 1024; B is a billion where things are counted and a byte where sizes are given.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

_NUMBER = re.compile(r"\s*([+-]?\d+(?:_\d+)*(?:\.\d+(?:_\d+)*)?(?:[eE][+-]?\d{1,3})?)\s*(.*?)\s*", re.S | re.A)

_LONGEST = 60  # characters of a quantity
_LARGEST = 2**63 - 1  # what programs that read a plan can take

_DECIMAL = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
_BINARY = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40, "Pi": 1 << 50}
_COUNTS = _DECIMAL | _BINARY | {"B": 10**9}
_SIZES = {prefix + "B": factor for prefix, factor in (_DECIMAL | _BINARY).items()}
_TIMES: dict[str, Fraction] = {
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "min": Fraction(60),
    "h": Fraction(3600),
    "d": Fraction(86_400),
    "w": Fraction(604_800),
}
_BITS = {prefix + "b": Fraction(factor, 8) for prefix, factor in (_DECIMAL | _BINARY).items()}


@dataclass(frozen=True)
class Unit:
    """What may follow the number. A bare number is in the base unit; `nouns` may be said or left out."""

    factors: Mapping[str, int | Fraction]
    accepted: str
    whole: bool
    example: str
    nouns: tuple[str, ...] = ()
    bare: bool = True


UNITS: Mapping[str, Unit] = {
    "count": Unit(_COUNTS, "k, M, B, T and Ki, Mi, Gi, Ti", True, "4Ki"),
    "tokens": Unit(_COUNTS, "k, M, B, T and Ki, Mi, Gi, Ti", True, "2.34T", ("tokens", "token")),
    "bytes": Unit(_SIZES, "B, kB, MB, GB, TB and KiB, MiB, GiB, TiB", True, "80GiB"),
    "seconds": Unit(_TIMES, "ms, s, min, h, d, w", False, "30min"),
    "bandwidth": Unit(
        {f"{size}/s": factor for size, factor in (_SIZES | _BITS).items()},
        "Mb/s, Gb/s, Tb/s (bits) and MB/s, GB/s, TB/s (bytes)",
        False,
        "200Gb/s",
    ),
    "gpu-hours": Unit(_COUNTS, "gpu-hours", False, "50000 gpu-hours", ("gpu-hours", "gpu-hour"), bare=False),
}


class UnitError(ValueError):
    """A quantity that cannot be read: the sentence, and the cure if there is one."""

    def __init__(self, message: str, cure: str | None = None) -> None:
        super().__init__(message)
        self.cure = cure


class NotANumberError(UnitError):
    """There is no number to read."""


class NotWholeError(UnitError):
    """The quantity is not a whole number although it counts things."""


class OutOfRangeError(UnitError):
    """The quantity is zero or negative where that has no meaning."""


@dataclass(frozen=True)
class Steps:
    """An interval of optimizer steps."""

    steps: int


@dataclass(frozen=True)
class Seconds:
    """An interval of wall time."""

    seconds: float


def quantity(value: int | float | str, unit: str) -> int | float:
    """The value in the unit's base: an int where things are counted, else a float. Raises UnitError."""
    known = UNITS[unit]
    if isinstance(value, str):
        number, suffix = _split(value, known.example)
        number *= _factor(suffix, value, known)
    else:
        number = Fraction(repr(value)) if isinstance(value, float) else Fraction(value)
    if abs(number) > _LARGEST:
        raise OutOfRangeError(f"`{value}` is more than anything here can be")
    if known.whole and number.denominator != 1:
        raise NotWholeError(f"`{value}` is {_decimal(number)}, which is not a whole number")
    return int(number) if known.whole else float(number)


def interval(value: int | str) -> Steps | Seconds:
    """What "500 steps", "30min" or a bare number of steps means. Raises UnitError."""
    if isinstance(value, int):
        return _steps(Fraction(value), str(value))
    number, suffix = _split(value, "500 steps")
    noun = re.fullmatch(r"(\S*?)\s*steps?", suffix)
    if noun or suffix in _COUNTS:
        prefix = noun[1] if noun else suffix
        if prefix in _COUNTS:
            return _steps(number * _COUNTS[prefix], value)
    if suffix in _TIMES:
        if number <= 0:
            raise OutOfRangeError(f"`{value}` is no interval: it must be positive")
        if number > _LARGEST:
            raise OutOfRangeError(f"`{value}` is longer than anything lasts")
        return Seconds(float(number * _TIMES[suffix]))
    raise UnitError(f"`{suffix}` is not a unit of an interval", "accepted are steps and ms, s, min, h, d, w")


def canonical_interval(value: int | str) -> str:
    """ "500 steps" or "1800 s". Raises UnitError."""
    read = interval(value)
    return f"{read.steps} steps" if isinstance(read, Steps) else f"{_shortest(read.seconds)} s"


def canonical_gpu_hours(value: int | float | str) -> str:
    """ "50000 gpu-hours". Raises UnitError."""
    hours = quantity(value, "gpu-hours")
    if hours <= 0:
        raise OutOfRangeError(f"`{value}` is no work between failures: it must be positive")
    return f"{_shortest(float(hours))} gpu-hours"


def format_count(count: int) -> str:
    """The shortest exact way to write a count: 2340000000000 -> "2.34T", 4194304 -> "4Mi", 92544 -> "92,544"."""
    ways = [f"{count:,}"]
    for prefix, factor in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if factor <= count < 1000 * factor and count * 100 % factor == 0:
            ways.append(f"{_shortest(count / factor)}{prefix}")
    for prefix, factor in _BINARY.items():
        if factor <= count < 1024 * factor and count % factor == 0:
            ways.append(f"{count // factor}{prefix}")
    return min(ways, key=len)


def format_bytes(size: int | float) -> str:
    """Three or four significant digits in a binary unit: 85899345920 -> "80 GiB"."""
    for prefix, factor in reversed(_BINARY.items()):
        if abs(size) >= factor:
            return f"{_shortest(round(size / factor, 2))} {prefix}B"
    return f"{_shortest(size)} B"


def format_seconds(seconds: float) -> str:
    """A duration that reads well: 93784 -> "1 d 2 h", 75 -> "1 min 15 s", 0.25 -> "250 ms"."""
    if seconds < 1:
        return f"{_shortest(round(seconds * 1000, 1))} ms"
    if seconds < 60:
        return f"{_shortest(round(seconds, 1))} s"
    rest = round(seconds)
    units = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))
    parts: list[tuple[int, str]] = []
    for name, length in units:
        amount, rest = divmod(rest, length)
        if amount or parts:
            parts.append((amount, name))
    return " ".join(f"{amount} {name}" for amount, name in parts[:2] if amount)


def _split(value: str, example: str) -> tuple[Fraction, str]:
    match = _NUMBER.fullmatch(value) if len(value) <= _LONGEST else None
    if not match:
        raise NotANumberError(f"`{value}` does not begin with a number", f'write it like "{example}"')
    if match[2].startswith(","):
        raise UnitError(f"`{value}` has commas", f'write "{value.replace(",", "_")}"')
    return Fraction(match[1].replace("_", "")), match[2]


def _factor(suffix: str, value: str, unit: Unit) -> int | Fraction:
    for noun in unit.nouns:
        if suffix.endswith(noun):
            bare = suffix[: -len(noun)].rstrip()
            if bare in unit.factors:
                return unit.factors[bare]
    if suffix in unit.factors and (unit.bare or suffix != ""):
        return unit.factors[suffix]
    if suffix == "" and unit.bare:
        return 1
    said = f"`{suffix}` is not a unit here" if suffix else f"`{value}` has no unit"
    same = [name for name in unit.factors if name.lower() == suffix.lower()]
    cure = f'did you mean "{value.strip().removesuffix(suffix)}{same[0]}"? ' if same and suffix else ""
    raise UnitError(said, f"{cure}accepted are {unit.accepted}")


def _steps(number: Fraction, value: str) -> Steps:
    if number > _LARGEST:
        raise OutOfRangeError(f"`{value}` is more steps than there can be")
    if number.denominator != 1:
        raise NotWholeError(f"`{value}` is {_decimal(number)} steps, which is not a whole number")
    if number < 0:
        raise OutOfRangeError(f"`{value}` is no interval: it must not be negative")
    return Steps(int(number))


def _decimal(number: Fraction) -> str:
    return _shortest(float(number))


def _shortest(number: int | float) -> str:
    return str(int(number)) if number == int(number) else repr(float(number))
