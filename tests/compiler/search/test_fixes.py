"""What is said to make a phase fit makes it fit."""

from pathlib import Path

import msgspec
import pytest
from tests.compiler.support import compile_fragment, write_spec

from trainwright.compiler.pipeline import questions_of
from trainwright.compiler.search.fixes import fixes
from trainwright.spec.load import load

TOO_LARGE = """
[run]
name = "large"
[model]
layers = 36
hidden_size = 8192
heads = 64
kv_heads = 8
ffn_size = 22_016
vocab_size = 92_544
[cluster]
gpu = "h100"
gpus_per_node = 8
[topology]
tensor = 4
"""


def changes_of(folder: Path, *sets: str) -> list[dict[str, object]]:
    loaded = load(write_spec(folder, TOO_LARGE), sets)
    asked = questions_of(loaded, None)
    assert asked is not None
    return [fix.changes for fix in fixes(asked[0][0], asked[1])]


def test_each_fix_makes_the_phase_fit(tmp_path: Path) -> None:
    _, compiled = compile_fragment(tmp_path, TOO_LARGE)
    assert [each.code for each in compiled.diagnostics] == ["TW330"]
    told = compiled.diagnostics[0].help or ""
    changes = changes_of(tmp_path)
    assert len(changes) == 3
    for change in changes:
        assert ", ".join(f"{key} = {value}" for key, value in change.items()) in told
        sets = [f"topology.{key}={msgspec.json.encode(value).decode()}" for key, value in change.items()]
        _, fixed = compile_fragment(tmp_path, TOO_LARGE, *sets)
        assert fixed.diagnostics == []


def test_no_pair_is_told_where_one_of_the_two_is_enough(tmp_path: Path) -> None:
    changes = changes_of(tmp_path)
    single = [change.items() for change in changes if len(change) == 1]
    pairs = [change.items() for change in changes if len(change) == 2]
    assert single
    assert not [pair for pair in pairs if any(each <= pair for each in single)]


def test_where_no_two_values_are_enough_a_whole_layout_is_told(tmp_path: Path) -> None:
    sets = ("topology.tensor=1", "topology.data=8", "topology.zero=0", "model.layers=45")
    (change,) = changes_of(tmp_path, *sets)
    assert len(change) > 2
    values = [f"topology.{key}={msgspec.json.encode(value).decode()}" for key, value in change.items()]
    _, fixed = compile_fragment(tmp_path, TOO_LARGE, *sets, *values)
    assert fixed.diagnostics == []


def test_where_nothing_fits_a_cluster_is_told_that_is_large_enough(tmp_path: Path) -> None:
    _, compiled = compile_fragment(tmp_path, TOO_LARGE, "cluster.gpus_per_node=4")
    assert "some do on `nodes = 2`" in (compiled.diagnostics[0].help or "")
    found = changes_of(tmp_path, "cluster.gpus_per_node=4", "cluster.nodes=2")
    assert found


@pytest.mark.parametrize("key", ["tensor", "recompute"])
def test_a_free_value_is_no_change(tmp_path: Path, key: str) -> None:
    assert not [
        change for change in changes_of(tmp_path, f'topology.{key}="auto"', "topology.pipeline=1") if key in change
    ]


@pytest.mark.parametrize(
    "written",
    [
        {"context": "auto", "data": 2, "recompute": "full"},
        {"zero": 2, "zero_group": "auto", "micro_batch": 1},
        {"virtual_pipeline": 1, "schedule": "1f1b", "pipeline": "auto", "tensor": 1},
        {"tensor": 2, "zero": 1, "recompute": "none"},
    ],
    ids=str,
)
def test_a_fix_reckons_with_what_the_search_leaves_out(tmp_path: Path, written: dict[str, object]) -> None:
    sets = [f"topology.{key}={msgspec.json.encode(value).decode()}" for key, value in written.items()]
    changes = changes_of(tmp_path, *sets)
    assert changes
    for change in changes:
        values = [f"topology.{key}={msgspec.json.encode(value).decode()}" for key, value in change.items()]
        _, fixed = compile_fragment(tmp_path, TOO_LARGE, *sets, *values)
        assert fixed.diagnostics == []
