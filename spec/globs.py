"""Globs over relative paths: `*` and `?` stay inside a folder's name, `**` stands for any number of folders."""

import re
from functools import lru_cache


def selected(path: str, include: tuple[str, ...], exclude: tuple[str, ...]) -> bool:
    """Whether the `/`-separated relative path is included (all are, if nothing is said) and not excluded."""
    return (not include or _matches_any(path, include)) and not _matches_any(path, exclude)


def _matches_any(path: str, globs: tuple[str, ...]) -> bool:
    return any(expression(glob).fullmatch(path) for glob in globs)


@lru_cache(maxsize=256)
def expression(glob: str) -> re.Pattern[str]:
    """The regular expression that a whole relative path must match (Python 3.13 has `glob.translate` for it)."""
    parts = glob.split("/")
    text = ""
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if part == "**":
            text += ".*" if last else "(?:.*/)?"
        else:
            text += _segment(part) + ("" if last else "/")
    return re.compile(text, re.DOTALL)


def _segment(glob: str) -> str:
    text, index = "", 0
    while index < len(glob):
        character = glob[index]
        index += 1
        if character == "*":
            text += "[^/]*"
        elif character == "?":
            text += "[^/]"
        elif (
            character == "[" and (end := glob.find("]", index + 2 if glob[index : index + 1] == "!" else index + 1)) > 0
        ):
            inside = glob[index:end].replace("\\", r"\\").replace("[", r"\[").replace("^", r"\^")
            text += f"[^{inside[1:]}]" if inside.startswith("!") else f"[{inside}]"
            index = end + 1
        else:
            text += re.escape(character)
    return text
