"""Every diagnostic there is: its code, its name, how bad it is and what it is about. `pages/CODE.md` explains it.

TW1xx: the spec as it is written. TW2xx: what the compiler finds between its values. TW3xx: the cluster.
"""

from dataclasses import dataclass
from pathlib import Path

from trainwright.spec.diagnostics import Severity


@dataclass(frozen=True)
class Code:
    """A row of the table."""

    code: str
    name: str
    severity: Severity
    title: str


SYNTAX = "TW101"
DUPLICATE_KEY = "TW102"
NOT_UTF8 = "TW103"
UNREADABLE_FILE = "TW104"
EXTENDS_CYCLE = "TW105"
UNKNOWN_PRESET = "TW106"
BAD_OVERRIDE = "TW107"
UNKNOWN_KEY = "TW110"
MISSING_KEY = "TW111"
WRONG_TYPE = "TW112"
WRONG_UNIT = "TW113"
NOT_WHOLE = "TW114"
OUT_OF_RANGE = "TW115"
UNKNOWN_CHOICE = "TW116"
BAD_NAME = "TW117"
WRONG_LENGTH = "TW118"

_SPEC = (
    Code(SYNTAX, "syntax", "error", "the text is not TOML"),
    Code(DUPLICATE_KEY, "duplicate-key", "error", "a key or table is defined twice"),
    Code(NOT_UTF8, "not-utf-8", "error", "the file is not UTF-8 text"),
    Code(UNREADABLE_FILE, "unreadable-file", "error", "a spec file cannot be read"),
    Code(EXTENDS_CYCLE, "extends-cycle", "error", "a spec extends itself"),
    Code(UNKNOWN_PRESET, "unknown-preset", "error", "there is no preset of that name"),
    Code(BAD_OVERRIDE, "bad-override", "error", "an override does not name a value of the spec"),
    Code(UNKNOWN_KEY, "unknown-key", "error", "a key that means nothing here"),
    Code(MISSING_KEY, "missing-key", "error", "a key that must be given is absent"),
    Code(WRONG_TYPE, "wrong-type", "error", "a value of the wrong type"),
    Code(WRONG_UNIT, "wrong-unit", "error", "a quantity whose unit does not fit"),
    Code(NOT_WHOLE, "not-whole", "error", "a count that is not a whole number"),
    Code(OUT_OF_RANGE, "out-of-range", "error", "a number outside of what is possible"),
    Code(UNKNOWN_CHOICE, "unknown-choice", "error", "a value that is not among the choices"),
    Code(BAD_NAME, "bad-name", "error", "a name with characters that names cannot have"),
    Code(WRONG_LENGTH, "wrong-length", "error", "an array or string that is too short or too long"),
)

CODES: dict[str, Code] = {row.code: row for row in _SPEC}


def page(code: str) -> str | None:
    """The Markdown page that `explain` prints; None if there is no such code."""
    row = CODES.get(code.upper())
    if row is None:
        return None
    return (Path(__file__).parent / "pages" / f"{row.code}.md").read_text(encoding="utf-8")
