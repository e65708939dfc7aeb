"""The nearest values that would have worked, for the help of a diagnostic."""

from collections.abc import Callable, Iterable
from difflib import get_close_matches


def nearest_name(name: str, known: Iterable[str]) -> str:
    """``did you mean `x`?``, or the list of what there is."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean `{close[0]}`?"
    if not names:
        return "there is none yet"
    return "there is " + ", ".join(f"`{each}`" for each in names)


def nearest_numbers(value: int, works: Callable[[int], bool], *, least: int = 1, reach: int = 4096) -> list[int]:
    """The nearest smaller and the nearest larger number that work, as far as there are any within reach."""
    smaller = next((n for n in range(value - 1, max(least, value - reach) - 1, -1) if works(n)), None)
    larger = next((n for n in range(value + 1, value + reach) if works(n)), None)
    return [n for n in (smaller, larger) if n is not None]


def either(numbers: Iterable[int]) -> str:
    """`6 or 8`, with thousands set apart."""
    return " or ".join(f"{number:,}" for number in numbers)
