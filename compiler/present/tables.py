"""What all of the compiler's text output shares: tables, bars, and words for estimates."""

from collections.abc import Callable, Iterable

from rich import box
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from trainwright.compiler.figures import rough
from trainwright.spec.units import format_seconds

UNKNOWN = "–"
_EIGHTHS = " ▏▎▍▌▋▊▉"


def table(title: str = "", *left: str, right: tuple[str, ...] = ()) -> Table:
    """A table with a line under its head: the columns `left`, which wrap, then the columns `right`, which do not."""
    made = Table(
        title=title or None,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    made.caption_justify = "left"
    for name in left:
        made.add_column(name, overflow="fold")
    for name in right:
        made.add_column(name, justify="right", no_wrap=True)
    return made


def pairs(rows: Iterable[tuple[str, str]]) -> Table:
    """Names in bold, and beside each what there is to say."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(escape(name), escape(value))
    return grid


def bar(share: float, width: int, style: str = "") -> Text:
    """A bar of `share` (0 to 1) of `width` columns, in eighths of a column; never empty for a share above 0."""
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    if share > 0:
        eighths = max(eighths, 1)
    full, rest = divmod(eighths, 8)
    return Text(("█" * full + _EIGHTHS[rest].strip()).ljust(width), style=style)


def seconds(value: float | None) -> str:
    """An estimated time, in three digits below a minute: `~1.3 s`."""
    if value is None:
        return UNKNOWN
    return f"~{format_seconds(float(f'{value:.3g}') if value < 60 else value)}"


def number(value: float | None) -> str:
    """An estimated amount in three digits: `~458,000`."""
    return UNKNOWN if value is None else rough(value)


def percent(share: float | None) -> str:
    return UNKNOWN if share is None else f"{share:.0%}"


def interval(show: Callable[[float | None], str], low: float | None, high: float | None) -> str:
    """`1.2 s to 1.5 s`; empty where there is no interval or it is a point."""
    if low is None or high is None or low == high:
        return ""
    return f"{show(low)} to {show(high)}".replace("~", "")


def span(value: str, between: str) -> str:
    """The value, and its interval in brackets where there is one."""
    return f"{value} ({between})" if between else value
