"""Planned against published memory, by what the source measured. Part of `bench/accuracy.py`.

Which rows a coefficient was chosen on (`CHOSEN_ON`) is said beside every error, since an error there proves little.
What was looked at while a profile was written counts as chosen on, too.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from statistics import mean, median
from typing import Any

from published import Row

from trainwright.compiler.capacity import SAFE, TIGHT
from trainwright.compiler.cost.memory import Memory, rank_memory

GIB, GB = 2**30, 1e9

# By how `mem_kind` begins: what to compare with, the unit that the source prints, and whether it is torch's maximum.
KINDS = {
    "max_memory_allocated GiB": ("allocated", GIB, True),
    "max_memory_allocated, bytes/1e9, LAST rank": ("allocated on the last rank", GB, True),
    "max peak memory across devices": ("allocated", GIB, True),  # printed as GB; only GiB fits 16 bytes a parameter
    "max_reserved GiB": ("reserved", GIB, False),
    "nvidia-smi": ("device", GB, False),
    "GB as printed in figure": ("not said", GB, False),
    "GPU memory": ("device", GB, False),
}

CHOSEN_ON = {
    "SimuMax": "context parallelism's copies, one copy of Q, K and V, the placeholders of gradients",
    "Megatron-LM CI": "6 bytes a logit",
    "Vocabulary Parallelism paper (1F1B)": "2 bytes a gradient",
    "Vocabulary Parallelism paper (V-Half)": "(p + 3) / 2 micro-batches in flight",
    "InternEvo": "what the optimizer's step holds",
    "nanotron": "its copies beyond the products' inputs",
    "BigScience tr3m": "buckets, context",
}


def evaluate(rows: Sequence[Row]) -> dict[str, Any]:
    """Errors in percent by source and by kind, flagged out-of-memory rows, and what was left out with why.

    `mape_pct` is over the rows that log torch's maximum; the others differ by caches and contexts.
    """
    left_out: Counter[str] = Counter()
    errors: dict[tuple[str, str], list[float]] = defaultdict(list)
    static: list[float] = []
    for row in rows:
        if row.memory_gb is None or row.out_of_memory:
            continue
        kind = next((key for key in KINDS if row.mem_kind.startswith(key)), None)
        why = _left_out(row, kind)
        if why or kind is None:
            left_out[why] += 1
            continue
        errors[row.source, kind].append(_error_pct(row, kind))
        if row.values.get("mem_static_gb"):
            static.append(100 * (_ranks(row)[-1].states / GB / float(row.values["mem_static_gb"]) - 1))
    headline = [error for (_, kind), found in errors.items() if KINDS[kind][2] for error in found]
    return {
        "mape_pct": _mape(headline),
        "rows": len(headline),
        "by_source": {source: _summary(found) | _about(source, kind) for (source, kind), found in errors.items()},
        "by_kind": _by_kind(errors),
        "static_mape_pct": _mape(static),
        "static_rows": len(static),
        "out_of_memory": _out_of_memory(rows),
        "left_out": dict(left_out),
    }


def _left_out(row: Row, kind: str | None) -> str:
    """Why the row does not count, empty if it does."""
    if row.case is None:
        return row.why_not
    if kind is None:
        return "nobody says what was measured"
    if row.assumed:
        return f"assumed: {', '.join(row.assumed)}"
    if not row.values.get("vocab"):
        return "the vocabulary is not stated"
    return ""


def _ranks(row: Row) -> list[Memory]:
    if row.case is None:
        raise ValueError(f"row {row.row_id} cannot be priced")
    return [rank_memory(row.case, part) for part in row.parts]


def _error_pct(row: Row, kind: str) -> float:
    """A source that logs the last rank is compared with it, all others with the fullest."""
    ranks = _ranks(row)
    against, unit, _ = KINDS[kind]
    if row.memory_gb is None:
        raise ValueError(f"row {row.row_id} has no memory")
    if against.endswith("last rank"):
        planned = ranks[-1].allocated
    else:
        planned = max(rank.total if against == "device" else rank.allocated for rank in ranks)
    return float(100 * (planned / unit / row.memory_gb - 1))


def _out_of_memory(rows: Sequence[Row]) -> dict[str, Any]:
    """How many of the rows that ran out are flagged, and how many of those that ran are, by share of the card.

    Runs whose source does not say what was recomputed or offloaded are no false alarms: they are not counted.
    """
    ran_out: list[float] = []
    ran: list[float] = []
    unpriced = 0
    for row in rows:
        if row.case is None or row.hardware is None or not row.hardware.memory_bytes:
            unpriced += row.out_of_memory
            continue
        if not row.out_of_memory and (row.assumed or not row.values.get("recompute")):
            continue
        share = max(rank.total for rank in _ranks(row)) / row.hardware.memory_bytes
        (ran_out if row.out_of_memory else ran).append(share)
    return {
        "rows": len(ran_out),
        "not_priced": unpriced,
        "rows_that_ran": len(ran),
        "by_share_of_the_card": {
            str(share): {"flagged": _above(ran_out, share), "false_alarms": _above(ran, share)}
            for share in (1.0, TIGHT, SAFE)
        },
    }


def _above(shares: Iterable[float], limit: float) -> int:
    return sum(share > limit for share in shares)


def _mape(errors: Sequence[float]) -> float | None:
    return round(mean(map(abs, errors)), 2) if errors else None


def _summary(errors: Sequence[float]) -> dict[str, Any]:
    worst: float = max(errors, key=abs)
    return {
        "rows": len(errors),
        "mape_pct": _mape(errors),
        "mean_pct": round(mean(errors), 2),
        "median_pct": round(median(errors), 2),
        "worst_pct": round(worst, 2),
    }


def _about(source: str, kind: str) -> dict[str, Any]:
    chosen = next((what for name, what in CHOSEN_ON.items() if name in source), None)
    return {"compared": KINDS[kind][0], "chosen_on_it": chosen}


def _by_kind(errors: dict[tuple[str, str], list[float]]) -> dict[str, dict[str, Any]]:
    pooled: dict[str, list[float]] = defaultdict(list)
    for (_, kind), found in errors.items():
        pooled[kind] += found
    return {kind: _summary(found) for kind, found in pooled.items()}


def lines(found: dict[str, Any]) -> list[str]:
    """The result as text."""
    text = [f"memory: {found['rows']} rows that log torch's maximum, mean absolute error {found['mape_pct']} %"]
    for source, figures in found["by_source"].items():
        chosen = f"; chosen on it: {figures['chosen_on_it']}" if figures["chosen_on_it"] else ""
        text.append(
            f"  {source}: {figures['rows']} rows, {figures['mape_pct']} %, mean {figures['mean_pct']:+}, "
            f"worst {figures['worst_pct']:+} ({figures['compared']}{chosen})"
        )
    text.append(f"  states between steps: {found['static_rows']} rows, {found['static_mape_pct']} %")
    ran_out = found["out_of_memory"]
    for share, counts in ran_out["by_share_of_the_card"].items():
        text.append(
            f"  above {share} of the card: {counts['flagged']} of {ran_out['rows']} rows that ran out of memory, "
            f"{counts['false_alarms']} of {ran_out['rows_that_ran']} that did not"
        )
    text += [f"  left out: {count} rows, {why}" for why, count in found["left_out"].items()]
    return text
