"""What a training stage made of its rows: `ledger.json`, the totals, and `ledger.jsonl`, every row not used whole."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from trainwright.runtime.store import write_atomically

LEDGER_FILE, LEDGER_ROWS_FILE = "ledger.json", "ledger.jsonl"


def write_ledger(out: Path, totals: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> None:
    """Both files lie in `out`."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    write_atomically(out / LEDGER_ROWS_FILE, "".join(lines).encode())
    write_atomically(out / LEDGER_FILE, (json.dumps(totals, ensure_ascii=False, indent=2) + "\n").encode())
