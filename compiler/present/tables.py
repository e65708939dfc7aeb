"""What all of the compiler's text output shares: tables, bars, and words for estimates."""

from rich import box
from rich.table import Table
from rich.text import Text

from trainwright.compiler.figures import rough
from trainwright.spec.units import format_seconds

UNKNOWN = "–"
_EIGHTHS = " ▏▎▍▌▋▊▉"


def table(title: str = "", *left: str, right: tuple[str, ...] = ()) -> Table:
    """A table with a line under its head: the columns `left`, which wrap, then the columns `right`, which do not."""
    made = Table(title=title or None, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    made.caption_justify = "left"
    for name in left:
        made.add_column(name, overflow="fold")
    for name in right:
        made.add_column(name, justify="right", no_wrap=True)
    return made


def bar(share: float, width: int, style: str = "") -> Text:
    """A bar of `share` (0 to 1) of `width` columns, in eighths of a column; never empty for a share above 0."""
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    if share > 0:
        eighths = max(eighths, 1)
    full, rest = divmod(eighths, 8)
    return Text(("█" * full + _EIGHTHS[rest].strip()).ljust(width), style=style)


def seconds(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """An estimated time, with its interval where there is one: `~1.3 s (1.2 s to 1.4 s)`."""
    if value is None:
        return UNKNOWN
    if low is None or high is None or low == high:
        return f"~{format_seconds(value)}"
    return f"~{format_seconds(value)} ({format_seconds(low)} to {format_seconds(high)})"


def number(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """An estimated amount, with its interval where there is one: `~458,000 (410,000 to 520,000)`."""
    if value is None:
        return UNKNOWN
    if low is None or high is None or low == high:
        return rough(value)
    return f"{rough(value)} ({rough(low)[1:]} to {rough(high)[1:]})"
