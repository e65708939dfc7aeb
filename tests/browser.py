"""Opens a page in headless Chromium, as a reader's browser would, and fails if its console says anything."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium is installed (Debian: `apt-get install chromium`)"
)


def open_page(page: Path, *options: str, fragment: str = "", width: int = 1400, height: int = 3000) -> str:
    """What Chromium writes to stdout, such as the document with `--dump-dom`. Its profile lies beside the page."""
    assert CHROMIUM is not None
    home = page.parent
    done = subprocess.run(
        [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-extensions",
         "--enable-logging=stderr", f"--user-data-dir={home / 'profile'}", "--virtual-time-budget=4000",
         f"--window-size={width},{height}", *options, f"file://{page}{fragment}"],
        capture_output=True, text=True, timeout=120, check=True, env={**os.environ, "HOME": str(home)},
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr, [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout
