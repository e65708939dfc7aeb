"""What differs between two pieces of plain data, by dotted key."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

ABSENT = "(absent)"


@dataclass(frozen=True)
class Change:
    """One value that differs; `ABSENT` where one side has none."""

    key: str
    old: Any
    new: Any

    def __str__(self) -> str:
        where, _, name = self.key.rpartition(".")
        if name == "digest":  # says that content differs and nothing more
            return f"the content of `{where.removeprefix('sources.') or 'path'}` changed"
        if name == "revision":
            return "trainwright computes it in another way now"
        return f"{self.key} {show(self.old)} -> {show(self.new)}"


def changes(old: Any, new: Any, key: str = "") -> Iterator[Change]:
    """Every leaf that differs, in the order of the older side. Lists of named things are compared by name."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in [*old, *(name for name in new if name not in old)]:
            inner = f"{key}.{name}" if key else str(name)
            yield from changes(old.get(name, ABSENT), new.get(name, ABSENT), inner)
    elif _named(old) and _named(new):
        yield from changes({each["name"]: each for each in old}, {each["name"]: each for each in new}, key)
    elif old != new:
        yield Change(key, old, new)


def show(value: Any) -> str:
    """A value short enough to stand in a sentence."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, dict):
        return (
            "{...}" if len(value) > 3 else "{" + ", ".join(f"{name} {show(each)}" for name, each in value.items()) + "}"
        )
    if isinstance(value, list):
        return "[...]" if len(value) > 3 else "[" + ", ".join(show(each) for each in value) + "]"
    text = str(value)
    return text if len(text) <= 24 else f"{text[:21]}..."


def _named(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, dict) and "name" in each for each in value)
