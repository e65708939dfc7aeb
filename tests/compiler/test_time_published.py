"""The time model against published runs: the bounds that the documentation states, and what becomes of odd rows."""

import importlib
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "bench"


def module(name: str) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCH))
        return importlib.import_module(name)


@pytest.fixture(scope="module")
def figures() -> Any:
    accuracy = module("accuracy")
    return accuracy.time_figures(accuracy.predict(module("published").rows())[0])


@pytest.mark.slow
def test_dense_rows_of_sources_not_fitted_on_are_within_a_tenth(figures: Any) -> None:
    assert figures["rows"] > 200
    assert figures["mape_pct"] < 8
    assert figures["mean_of_sources_pct"] < 10


@pytest.mark.slow
def test_every_source_of_ten_rows_is_nearer_than_by_one_efficiency(figures: Any) -> None:
    for source, each in figures["by_source"].items():
        if each["rows"] >= 10:
            assert each["mape_pct"] < each["null_mape_pct"], source


@pytest.mark.slow
def test_the_interval_holds_about_what_it_says(figures: Any) -> None:
    assert 70 < figures["inside_interval_pct"] < 90


ROW = {
    "row_id": "1",
    "source": "somebody",
    "model": "llama",
    "layers": "32",
    "hidden": "4096",
    "heads": "32",
    "ffn_hidden": "11008",
    "vocab": "32000",
    "seq_len": "4096",
    "global_batch": "64",
    "micro_batch": "1",
    "gpus": "16",
    "gpu_type": "A100-80GB",
    "tp": "2",
    "pp": "2",
    "mlp": "swiglu",
    "precision": "bf16",
    "step_time_s": "4.0",
    "tier": "A",
}


def read(tmp_path: Path, **changes: str) -> Any:
    values = ROW | changes
    path = tmp_path / "rows.csv"
    path.write_text(",".join(values) + "\n" + ",".join(values.values()) + "\n", encoding="utf-8")
    (row,) = module("published").rows(path)
    return row


def test_a_row_becomes_a_case(tmp_path: Path) -> None:
    row = read(tmp_path)
    assert (row.why_not, row.assumed, row.step_time_s) == ("", (), 4.0)
    assert (row.case.data, row.case.micro_batches, row.case.zero, row.case.zero_group) == (4, 16, 1, 4)
    assert row.case.sequence_parallel
    assert len(row.parts) == 2


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"seq_len": ""}, "`seq_len` is not stated"),
        ({"tp": "nan"}, "`tp` is not stated"),
        ({"gpus": "-8"}, "`gpus` is not stated"),
        ({"tp": "3"}, "the layout does not fill its GPUs"),
        ({"pp": "16", "tp": "1", "layers": "8"}, "more pipeline ranks than layers"),
        ({"global_batch": "2"}, "the batch is smaller than one micro-batch a rank"),
        ({"ep": "8"}, "a mixture of experts: not covered"),
        ({"precision": "nvfp4"}, "fp4: not covered"),
        ({"gpu_type": "X1"}, "nothing is known of the device `X1`"),
    ],
)
def test_a_row_that_cannot_be_priced_says_why(changes: dict[str, str], why: str, tmp_path: Path) -> None:
    row = read(tmp_path, **changes)
    assert row.case is None
    assert row.why_not == why


def test_what_nobody_says_is_assumed_and_told(tmp_path: Path) -> None:
    row = read(tmp_path, micro_batch="", heads="")
    assert set(row.assumed) == {"micro-batches of 1", "heads of 128"}
    assert row.case.model.heads == 32
