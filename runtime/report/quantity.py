"""Numbers as people read them: counts, sizes, durations, and the ticks of an axis."""

import math
from datetime import datetime

MISSING = "–"
_SI = ((1e15, "P"), (1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K"))
_LOG_FACTORS = ((1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9), (1, 2, 3, 4, 5, 6, 8), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,))
_BINARY = ((2**50, "PiB"), (2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def count(value: float | None) -> str:
    """`1,234,567`; from ten billion on `2.34T`."""
    if value is None:
        return MISSING
    return f"{value:,.0f}" if abs(value) < 1e10 else short(value)


def short(value: float) -> str:
    """At most three digits and K, M, B, T: `480K`, `1.8B`, `0.25`."""
    for factor, suffix in _SI:
        if abs(value) >= factor:
            return _three_digits(value / factor) + suffix
    return _three_digits(value)


def size(value: float | None) -> str:
    """`1.42 MiB`; bytes as they are."""
    if value is None:
        return MISSING
    for factor, suffix in _BINARY:
        if abs(value) >= factor:
            return f"{_three_digits(value / factor)} {suffix}"
    return f"{value:.0f} B"


def duration(seconds: float | None) -> str:
    """`0.8 s`, `42 s`, `4 min 12 s`, `3 h 05 min`, `12 d 4 h`."""
    if seconds is None:
        return MISSING
    if seconds < 10:
        return f"{seconds:.1f} s" if seconds >= 0.1 or seconds == 0 else f"{seconds * 1000:.1f} ms"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def milliseconds(value: float | None) -> str:
    """`93.1 ms`, `1.42 s`."""
    if value is None:
        return MISSING
    return f"{_three_digits(value)} ms" if value < 1000 else f"{_three_digits(value / 1000)} s"


def number(value: float | None, digits: int = 3) -> str:
    """That many digits behind the point."""
    return MISSING if value is None else f"{value:,.{digits}f}"


def error(value_pct: float | None) -> str:
    """`+20 %`, `−3 %`, `0 %`; nothing where there is nothing to compare."""
    if value_pct is None:
        return ""
    whole = round(value_pct)
    return f"{whole:+,d} %".replace("-", "−") if whole else "0 %"


def rate(value: float) -> str:
    """A learning rate as specs write it: `3e-4`, `2.5e-5`, `0`."""
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def instant(text: str | None) -> str:
    """An ISO 8601 time to the second, in UTC; anything else as it is."""
    if not text:
        return MISSING
    try:
        return datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M:%S UTC")
    except ValueError:
        return text


def linear_ticks(low: float, high: float, target: int) -> list[float]:
    """Multiples of 1, 2, 2.5 or 5 times a power of ten inside [low, high], at most about `target` of them."""
    if not high > low:
        return [low]
    rough = (high - low) / max(target, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def log_ticks(low: float, high: float, target: int) -> list[float]:
    """Round numbers inside [low, high] on a logarithmic axis, at most `target`; equal steps where that is narrow.

    `low` > 0.
    """
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in _LOG_FACTORS:
        ticks = [float(f"{factor}e{exponent}") for exponent in exponents for factor in factors]
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) <= target:
            break
    if len(inside) < 3:
        return linear_ticks(low, high, target)
    return inside[:: math.ceil(len(inside) / target)]


def _three_digits(value: float) -> str:
    if value == 0:
        return "0"
    text = f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return text if "e" not in text else f"{value:.2e}"
