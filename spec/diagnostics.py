"""A mistake in a spec, as data: renderers live in `spec/render.py`, the table of codes in `spec/codes.py`."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]
KeyPath = tuple[str | int, ...]  # ("phases", 0, "tokens")


@dataclass(frozen=True, order=True)
class Span:
    """Where something stands: 1-based lines and columns (columns count characters), the end exclusive."""

    file: str
    line: int
    column: int
    end_line: int
    end_column: int


@dataclass(frozen=True)
class Label:
    """A second place that helps to understand the first."""

    span: Span
    text: str


@dataclass(frozen=True)
class Diagnostic:
    """One mistake: a code, a severity, the smallest span, a sentence (lower case, no full stop), perhaps a cure."""

    code: str
    message: str
    span: Span | None = None
    help: str | None = None
    labels: tuple[Label, ...] = ()
    severity: Severity = "error"
    members: tuple[str, ...] = ()  # of a sweep: those that have this mistake, where not all have it


@dataclass(frozen=True)
class Origin:
    """Where a value of the resolved spec comes from."""

    kind: Literal["default", "preset", "file", "when", "matrix", "environment", "command line"]
    text: str  # "a.toml:12", "preset:internlm2-7b", "when[0] a.toml:8", "TRAINWRIGHT_SET__run__seed", "-s run.seed=1"
    span: Span | None = None


def has_errors(diagnostics: list[Diagnostic]) -> bool:
    return any(diagnostic.severity == "error" for diagnostic in diagnostics)


def in_order(diagnostics: Iterable[Diagnostic], main: str) -> list[Diagnostic]:
    """Each mistake once, by place, those of the file `main` first."""

    def place(diagnostic: Diagnostic) -> tuple[bool, tuple[Span, ...]]:
        span = diagnostic.span
        return span is not None and span.file != main, (span,) if span else ()

    return sorted(dict.fromkeys(diagnostics), key=place)


def display(path: KeyPath) -> str:
    """The path as a user writes it: `phases[0].tokens`."""
    text = ""
    for key in path:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else key
    return text
