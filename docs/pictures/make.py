"""Takes the README's pictures: runs the real commands in a pseudo-terminal's colours and draws what they print.

Run from the root: `python docs/pictures/make.py`.
"""

import os
import pty
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

HERE = Path(__file__).parent
WIDTH = 110
PICTURES = {
    "check": ["check", "docs/pictures/broken.toml"],
    "plan": ["plan", "examples/tiny.toml", "--runs", "none"],
}


def run_in_terminal(arguments: list[str]) -> str:
    """What the command prints when both its outputs are a terminal of WIDTH columns."""
    outer, inner = pty.openpty()
    environ = {**os.environ, "COLUMNS": str(WIDTH), "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    environ.pop("NO_COLOR", None)
    process = subprocess.Popen(
        [sys.executable, "-m", "trainwright", *arguments],
        stdout=inner,
        stderr=inner,
        stdin=subprocess.DEVNULL,
        env=environ,
    )
    os.close(inner)
    data = b""
    while True:
        try:
            chunk = os.read(outer, 65536)
        except OSError:  # Linux says EIO when the other side has closed
            break
        if not chunk:
            break
        data += chunk
    process.wait()
    return data.decode().replace("\r\n", "\n")


def draw(name: str, arguments: list[str]) -> None:
    console = Console(record=True, width=WIDTH, file=StringIO(), force_terminal=True)
    console.print(Text.from_ansi(f"$ trainwright {' '.join(arguments)}\n" + run_in_terminal(arguments).rstrip()))
    # No font is fetched from the network: the reader's own monospace font will do.
    form = re.sub(r"@font-face \{\{.*?\}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    svg = console.export_svg(title="trainwright", theme=MONOKAI, code_format=form, unique_id=name)
    (HERE / f"{name}.svg").write_text(svg.replace("Fira Code, ", ""), encoding="utf-8")


if __name__ == "__main__":
    for name, arguments in PICTURES.items():
        draw(name, arguments)
