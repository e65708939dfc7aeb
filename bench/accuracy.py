"""How far the planner is off, on published runs: `python bench/accuracy.py [--rows FILE] [--json]`.

Every row that says its layout is predicted from that layout alone, and compared with what was measured. Constants were
fitted on the sources of FITTED and on tables of single kernels and collectives, nothing else; rows of those sources
are shown, and are in no headline. The null model is the least a planner must beat: one efficiency per kind of GPU and
precision, fitted in-sample to the very rows it is held against, with the pipeline's bubble.

Errors of all sources in `published/` were looked at while formulas were written. Rows that are not there are the
stricter test: `--rows FILE`.
"""

import argparse
import json
import math
import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import accuracy_memory
import msgspec
from published import PUBLISHED, Row, rows

from trainwright.compiler.cost.framework import load_framework
from trainwright.compiler.cost.time import quick_step_time, step_time
from trainwright.spec.plan import StepTime

# Substring of a source -> what was fitted on rows of it. See bench/fit_efficiency.py.
FITTED = {
    "MosaicML llm-foundry": "products on A100 and H100; traffic and attention of its eager layers (8 GPUs)",
    "vTrain ground truth (single-node)": "the host's time per kernel and the traffic of Megatron of 2021",
    "BLOOM": "what DeepSpeed's ZeRO-1 moves for each micro-batch's gradients",
    "Megatron-Bridge": "the share of fp8's peak that Blackwell keeps up",
}


@dataclass(frozen=True)
class Prediction:
    row: Row
    step: StepTime
    quick_s: float
    null_s: float

    @property
    def measured_s(self) -> float:
        assert self.row.step_time_s is not None
        return self.row.step_time_s

    @property
    def error(self) -> float:
        """Signed, as a share of what was measured."""
        return self.step.time_s / self.measured_s - 1

    @property
    def null_error(self) -> float:
        return self.null_s / self.measured_s - 1

    @property
    def inside(self) -> bool:
        return self.step.low_s <= self.measured_s <= self.step.high_s


def predict(found: Sequence[Row]) -> tuple[list[Prediction], dict[str, str]]:
    """Predictions of all rows that have a case and a time; and why the others have none, by row."""
    priced: list[tuple[Row, StepTime, float]] = []
    left_out = {}
    for row in found:
        why = row.why_not or ("no step time" if row.step_time_s is None else "")
        if row.case is not None and row.hardware is not None and not why:
            profile = msgspec.structs.replace(load_framework(row.case.framework).time, **row.overrides)
            try:
                step = step_time(row.case, row.parts, row.hardware, profile)
                priced.append((row, step, float(quick_step_time(row.case, row.hardware, profile))))
            except ValueError as error:
                why = str(error)
        if why:
            left_out[row.row_id] = why
    null = null_model([row for row, _, _ in priced])
    return [Prediction(row, step, quick, null[row.row_id]) for row, step, quick in priced], left_out


# --- the null model --------------------------------------------------------------------------------------------------


def null_model(found: Sequence[Row]) -> dict[str, float]:
    """Seconds by row: causal FLOPs, a third more with full recomputation, times 1F1B's bubble, over gpus * peak *
    one efficiency per GPU and precision, the median over these rows of tier A and B."""
    ideal = {row.row_id: _ideal_s(row) for row in found}
    families: dict[str, list[float]] = defaultdict(list)
    for row in found:
        if row.tier != "C" and row.step_time_s:
            families[_family(row)].append(math.log(ideal[row.row_id] / row.step_time_s))
    everything = [value for values in families.values() for value in values] or [math.log(0.4)]
    efficiency = {name: math.exp(statistics.median(values)) for name, values in families.items()}
    other = math.exp(statistics.median(everything))
    return {row.row_id: ideal[row.row_id] / efficiency.get(_family(row), other) for row in found}


def _family(row: Row) -> str:
    precision = row.values.get("precision", "")
    kind = row.values["gpu_type"].split("-")[0].split("(")[0]
    single = " single-node" if "single-node" in row.source else ""  # README: fitted apart
    return f"{kind} {precision if 'fp8' in precision else '16 bits'}{single}"


def _ideal_s(row: Row) -> float:
    case = row.case
    assert case is not None
    assert row.hardware is not None
    model = case.model
    h = model.hidden_size
    layer = 2 * h * h + 2 * h * h * model.kv_heads / model.heads + (3 if model.gated else 2) * h * model.ffn_size
    per_token = 6 * (model.layers * layer + h * model.vocab_size) + 6 * model.layers * case.sequence_length * h
    flops = per_token * case.tokens_per_step * (4 / 3 if row.values.get("recompute") == "full" else 1)
    bubble = 1 + (case.pipeline - 1) / (case.virtual_pipeline * case.micro_batches)
    peak = row.hardware.peak("bf16") or row.hardware.peak("fp16") or 1e12
    return float(flops * bubble / (case.world_size * peak))


# --- figures ---------------------------------------------------------------------------------------------------------


def fitted(row: Row) -> bool:
    return any(name in row.source for name in FITTED)


def in_headline(row: Row) -> bool:
    """Dense, 16 bits, nothing assumed, of tier A or B, a pre-training run, of a source that nothing was fitted on."""
    workload = row.values.get("workload", "")
    return row.half_precision and not row.assumed and row.tier != "C" and workload != "sft" and not fitted(row)


def mean_error(predictions: Iterable[Prediction], error: Callable[[Prediction], float]) -> float | None:
    errors = [abs(error(each)) for each in predictions]
    return 100 * statistics.fmean(errors) if errors else None


def time_figures(predictions: Sequence[Prediction]) -> dict[str, Any]:
    held_out = [each for each in predictions if in_headline(each.row)]
    by_source = {}
    for source in sorted({each.row.source for each in predictions}):
        for wide in (False, True):
            own = [each for each in predictions if each.row.source == source and each.row.half_precision != wide]
            own = [each for each in own if each.row.tier != "C"]
            if own:
                ratios = sorted(1 + each.error for each in own)
                by_source[source + (" (fp8)" if wide else "")] = {
                    "rows": len(own),
                    "mape_pct": mean_error(own, lambda each: each.error),
                    "median_error_pct": 100 * (statistics.median(ratios) - 1),
                    "worst_error_pct": 100 * (max(ratios, key=lambda ratio: abs(ratio - 1)) - 1),
                    "null_mape_pct": mean_error(own, lambda each: each.null_error),
                    "inside_interval_pct": 100 * statistics.fmean(each.inside for each in own),
                    "fitted": fitted(own[0].row),
                    "in_headline": sum(in_headline(each.row) for each in own),
                }
    sources = [
        mean_error((each for each in held_out if each.row.source == source), lambda each: each.error) or 0.0
        for source in {each.row.source for each in held_out}
    ]
    return {
        "rows": len(held_out),
        "mape_pct": mean_error(held_out, lambda each: each.error),
        "mean_of_sources_pct": statistics.fmean(sources) if sources else None,
        "null_mape_pct": mean_error(held_out, lambda each: each.null_error),
        "quick_mape_pct": mean_error(held_out, lambda each: each.quick_s / each.measured_s - 1),
        "inside_interval_pct": 100 * statistics.fmean(each.inside for each in held_out) if held_out else None,
        "all_predicted_rows": len(predictions),
        "all_mape_pct": mean_error(predictions, lambda each: each.error),
        "by_source": by_source,
    }


def ranking(predictions: Sequence[Prediction]) -> list[dict[str, Any]]:
    """Where several layouts of one model, batch and number of GPUs were measured: does the plan rank them right?

    Regret: how much slower than the best measured layout the one is that the plan would have taken.
    """
    sets: dict[tuple[object, ...], list[Prediction]] = defaultdict(list)
    for each in predictions:
        case = each.row.case
        assert case is not None
        model = case.model
        shape = (model.layers, model.hidden_size, model.heads, model.vocab_size, case.precision, case.model.ffn_size)
        batch = round(float(case.tokens_per_step))
        sets[each.row.source, shape, case.sequence_length, batch, int(case.world_size), each.row.hardware_name].append(
            each
        )
    found: dict[str, list[tuple[float, float, int]]] = defaultdict(list)
    for key, group in sets.items():
        if len({_layout(each.row) for each in group}) < 3:
            continue
        correlation = _rank_correlation([each.step.time_s for each in group], [each.measured_s for each in group])
        chosen = min(group, key=lambda each: each.step.time_s)
        regret = chosen.measured_s / min(each.measured_s for each in group) - 1
        found[str(key[0])].append((correlation, regret, len(group)))
    return [
        {
            "source": source,
            "sets": len(each),
            "rows": sum(count for _, _, count in each),
            "rank_correlation": statistics.fmean(correlation for correlation, _, _ in each),
            "regret_pct": 100 * statistics.fmean(regret for _, regret, _ in each),
        }
        for source, each in sorted(found.items())
    ]


def _layout(row: Row) -> tuple[object, ...]:
    case = row.case
    assert case is not None
    return (
        case.tensor,
        case.pipeline,
        case.virtual_pipeline,
        case.context,
        case.micro_batch,
        case.zero,
        case.zero_group,
    )


def _rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's, ties by their mean rank."""
    one, other = _ranks(first), _ranks(second)
    if len(set(one)) < 2 or len(set(other)) < 2:
        return 0.0
    return statistics.correlation(one, other)


def _ranks(values: Sequence[float]) -> list[float]:
    ordered = sorted(values)
    return [ordered.index(value) + (ordered.count(value) - 1) / 2 for value in values]


# --- printing --------------------------------------------------------------------------------------------------------


def report(figures: dict[str, Any]) -> None:
    print("Constants were fitted on tables of kernels and collectives, and on")
    for source, what in FITTED.items():
        print(f"  {source}: {what}")
    time = figures["step_time"]
    print(f"\nStep time, {time['rows']} dense 16-bit rows with a full layout of sources not fitted on:")
    print(f"  mean absolute error {_pct(time['mape_pct'])}, mean over sources {_pct(time['mean_of_sources_pct'])}")
    print(f"  null model {_pct(time['null_mape_pct'])}, closed form {_pct(time['quick_mape_pct'])}")
    print(f"  inside the interval {_pct(time['inside_interval_pct'])} (of which 80 % are meant to be)\n")
    print(f"{'source':58} {'rows':>5} {'error':>7} {'null':>7} {'median':>7} {'worst':>7} {'inside':>7}")
    for source, each in time["by_source"].items():
        mark = "*" if each["fitted"] else " "
        names = ("mape_pct", "null_mape_pct", "median_error_pct", "worst_error_pct", "inside_interval_pct")
        print(f"{mark}{source[:57]:57} {each['rows']:5} " + " ".join(f"{_pct(each[name]):>7}" for name in names))
    print("* fitted on; not in the headline\n")
    print(f"{'layouts of one model and batch':58} {'sets':>5} {'rows':>5} {'rank':>6} {'regret':>7}")
    for each in figures["ranking"]:
        row = f" {each['source'][:57]:57} {each['sets']:5} {each['rows']:5} {each['rank_correlation']:6.2f}"
        print(f"{row} {_pct(each['regret_pct']):>7}")
    print("\nMemory")
    for line in accuracy_memory.lines(figures["memory"]):
        print(f"  {line}")
    print(f"\n{figures['rows']['used']} of {figures['rows']['total']} rows have a predicted time; left out:")
    for why, count in sorted(figures["rows"]["left_out"].items(), key=lambda item: -item[1]):
        print(f"{count:6} {why}")


def _pct(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}%"


def evaluate(path: Path) -> dict[str, Any]:
    found = rows(path)
    predictions, left_out = predict(found)
    return {
        "fitted_on": FITTED,
        "step_time": time_figures(predictions),
        "ranking": ranking(predictions),
        "memory": accuracy_memory.evaluate(found),
        "rows": {"total": len(found), "used": len(predictions), "left_out": dict(Counter(left_out.values()))},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=Path, default=PUBLISHED / "training.csv", help="a file of the same columns")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = evaluate(options.rows)
    if options.json:
        json.dump(figures, sys.stdout, indent=2)
        print()
    else:
        report(figures)


if __name__ == "__main__":
    main()
