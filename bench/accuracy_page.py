"""The page of known errors: `python bench/accuracy.py --json | python bench/accuracy_page.py > docs/accuracy.md`."""

import json
import sys
from collections.abc import Iterator
from typing import Any


def page(found: dict[str, Any]) -> Iterator[str]:
    """Lines of Markdown about one result of the benchmark."""
    step, memory = found["step_time"], found["memory"]
    yield "# How wrong the planner is\n"
    yield "<!-- Written by `python bench/accuracy.py --json | python bench/accuracy_page.py > docs/accuracy.md`. -->\n"
    yield (
        "Published runs of other people (`bench/published/`), each predicted from its layout alone. Constants were "
        "fitted on tables of single kernels and collectives and on the sources marked `*`; those are in no headline. "
        "The null model is one efficiency per kind of GPU and precision, fitted to the very rows it is held against. "
        "Below 0 means planned too low.\n"
    )
    yield "## Step time\n"
    yield (
        f"{step['rows']} dense 16-bit rows with a full layout, of sources not fitted on: mean absolute error "
        f"**{step['mape_pct']:.1f} %** (null model {step['null_mape_pct']:.1f} %); mean over the sources "
        f"{step['mean_of_sources_pct']:.1f} %. {step['inside_interval_pct']:.0f} % of the rows lie inside the interval "
        "that is to hold 80 %.\n"
    )
    yield "| source | rows | error | null model | median | worst | inside |"
    yield "|---|---|---|---|---|---|---|"
    for source, row in step["by_source"].items():
        figures = [row["mape_pct"], row["null_mape_pct"], row["median_error_pct"], row["worst_error_pct"]]
        cells = [f"{figure:+.1f} %" if place > 1 else f"{figure:.1f} %" for place, figure in enumerate(figures)]
        cells.append(f"{row['inside_interval_pct']:.0f} %")
        yield f"| {'* ' if row['fitted'] else ''}{source} | {row['rows']} | {' | '.join(cells)} |"
    yield "\nFitted on:\n"
    for source, what in found["fitted_on"].items():
        yield f"- {source}: {what}"
    yield "\nSeveral layouts of one model: does the planner rank them, and what would its choice cost?\n"
    yield "| source | sets | rows | rank correlation | regret |"
    yield "|---|---|---|---|---|"
    for row in found["ranking"]:
        cells = [
            row["source"],
            row["sets"],
            row["rows"],
            f"{row['rank_correlation']:.2f}",
            f"{row['regret_pct']:.1f} %",
        ]
        yield f"| {' | '.join(map(str, cells))} |"
    yield "\n## Memory\n"
    yield (
        f"{memory['rows']} rows that log torch's maximum: mean absolute error **{memory['mape_pct']:.2f} %**. Others "
        "read the device, which holds what the allocator keeps as well.\n"
    )
    yield "| source | rows | error | mean | worst | compared | chosen on it |"
    yield "|---|---|---|---|---|---|---|"
    for source, row in memory["by_source"].items():
        cells = [f"{row['mape_pct']:.1f} %", f"{row['mean_pct']:+.1f} %", f"{row['worst_pct']:+.1f} %", row["compared"]]
        yield f"| {source} | {row['rows']} | {' | '.join(cells)} | {row['chosen_on_it'] or ''} |"
    yield "\n## Left out\n"
    yield f"{found['rows']['used']} of {found['rows']['total']} rows have a predicted time. The others:\n"
    for why, count in sorted(found["rows"]["left_out"].items(), key=lambda item: -item[1]):
        yield f"- {count}: {why}"


if __name__ == "__main__":
    print("\n".join(page(json.load(sys.stdin))))
