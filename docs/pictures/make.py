"""Takes the README's pictures: runs the real commands in a pseudo-terminal's colours and draws what they print.

Run from the root: `python docs/pictures/make.py`. The picture of the page needs Chromium.
"""

import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
from io import StringIO
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

HERE = Path(__file__).parent
WIDTH = 100
_PIPELINE = ("cluster.nodes=64", "topology.pipeline=4", "topology.micro_batch=1", "topology.zero_group=8")
PIPELINED = [word for value in _PIPELINE for word in ("-s", value)]
PICTURES = {
    "check": ["check", "docs/pictures/broken.toml"],
    "plan": ["plan", "examples/internlm2-7b.toml", "--runs", "none"],
    "stage": ["plan", "examples/internlm2-7b.toml", "--runs", "none", *PIPELINED, "--stage", "4k"],
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


def photograph() -> None:
    """`page.png`: the page of a plan as a browser shows it."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        print("no Chromium: page.png is as it was", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "plan.html")
        command = ["plan", "examples/internlm2-7b.toml", "--runs", "none", *PIPELINED, "-q", "--html", str(page)]
        subprocess.run([sys.executable, "-m", "trainwright", *command], check=True)
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=4000"]
        options += [f"--user-data-dir={folder}/profile", "--window-size=1180,2900", f"--screenshot={HERE / 'page.png'}"]
        subprocess.run([browser, *options, f"file://{page}#theme=light"], check=True, capture_output=True)


if __name__ == "__main__":
    for name, arguments in PICTURES.items():
        draw(name, arguments)
    photograph()
