"""Sweeps: the members of a matrix, their names, values and origins, and the choice of one."""

import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from trainwright.spec.diagnostics import Diagnostic, Span
from trainwright.spec.load import Loaded, load, load_members
from trainwright.spec.matrix import combined
from trainwright.spec.render import render_github, render_text
from trainwright.spec.schema import published_schema

SPEC = """\
extends = ["preset:tiny"]

[run]
name = "mine"

[tokenizer]
train = {}

[[phases]]
name = "short"
tokens = "64Ki"
sequence_length = 128
mixture = "m"
learning_rate = { peak = 3e-3 }

"""


@pytest.fixture
def spec_path(tmp_path: Path) -> Path:
    return tmp_path / "spec.toml"


def members(path: Path, matrix: str, sets: Sequence[str] = ()) -> list[Loaded]:
    path.write_text(SPEC + matrix, encoding="utf-8")
    found = load_members(path, sets)
    for loaded in found:
        assert loaded.diagnostics == []
    return found


def names(found: Sequence[Loaded]) -> list[str]:
    return [loaded.spec.run.name for loaded in found if loaded.spec]


def test_an_entry_crosses_its_values_the_last_fastest(spec_path: Path) -> None:
    found = members(spec_path, '[[matrix]]\ntopology.tensor = [1, 2]\n"phases[0].learning_rate.peak" = [1e-4, 3e-4]\n')
    assert names(found) == [f"mine-tensor_{tensor}-peak_{peak}" for tensor in (1, 2) for peak in ("1e-4", "3e-4")]
    spec = found[3].spec
    assert spec is not None
    assert spec.topology.tensor == 2
    assert spec.phases[0].learning_rate is not None
    assert spec.phases[0].learning_rate.peak == 3e-4
    assert found[3].member is not None
    assert found[3].member.values == {"topology.tensor": "2", "phases.0.learning_rate.peak": "3e-4"}


def test_entries_are_joined_and_an_empty_one_is_the_spec_itself(spec_path: Path) -> None:
    matrix = '[[matrix]]\n[[matrix]]\n"run.seed" = [2, 3]\n[[matrix]]\n"run.seed" = [3]\n"run.precision" = ["fp32"]\n'
    assert names(members(spec_path, matrix)) == ["mine", "mine-seed_2", "mine-seed_3", "mine-seed_3-precision_fp32"]


def test_values_that_belong_together_stand_in_a_table(spec_path: Path) -> None:
    found = members(spec_path, "[[matrix]]\ntopology = [{ tensor = 1, pipeline = 4 }, { tensor = 4, pipeline = 1 }]\n")
    assert names(found) == ["mine-tensor_1", "mine-tensor_4"]
    assert [dict(loaded.member.values) for loaded in found if loaded.member] == [
        {"topology.tensor": "1", "topology.pipeline": "4"},
        {"topology.tensor": "4", "topology.pipeline": "1"},
    ]


def test_a_name_says_what_is_varied_and_no_more(spec_path: Path) -> None:
    matrix = '[[matrix]]\n"topology.tensor" = [2]\n"phases.short.tokens" = ["64 Ki"]\n"data.held_out" = [0.01, 0.02]\n'
    assert names(members(spec_path, matrix)) == ["mine-held_out_0.01", "mine-held_out_0.02"]


def test_names_of_two_like_keys_say_which(spec_path: Path) -> None:
    matrix = '[[matrix]]\n"phases.short.topology.tensor" = [1, 2]\n"topology.tensor" = [1, 2]\n'
    assert names(members(spec_path, matrix))[1] == "mine-short.topology.tensor_1-topology.tensor_2"


def test_nothing_is_a_value_too(spec_path: Path) -> None:
    source = '[data.sources.s]\npath = "a"\ninclude = ["x"]\n'
    found = members(spec_path, source + '[[matrix]]\n[[matrix]]\n"data.sources.s.include" = [[], ["y"]]\n')
    assert names(found) == ["mine", "mine-include_none", "mine-include.0_y"]
    assert [loaded.spec.data.sources["s"].include for loaded in found if loaded.spec] == [("x",), (), ("y",)]


def test_values_that_look_alike_are_told_apart(spec_path: Path) -> None:
    matrix = '[[matrix]]\n"data.sources.s.path" = ["a/*", "a/+"]\n'
    assert names(members(spec_path, matrix)) == ["mine-path_a-1", "mine-path_a-2"]


def test_what_the_command_line_sets_is_not_varied(spec_path: Path) -> None:
    matrix = '[[matrix]]\n"topology.tensor" = [1, 2]\n"run.seed" = [7, 8]\n'
    found = members(spec_path, matrix, ["topology.tensor=4"])
    assert names(found) == ["mine-seed_7", "mine-seed_8"]
    assert {loaded.spec.topology.tensor for loaded in found if loaded.spec} == {4}
    assert names(members(spec_path, matrix, ["matrix=[]"])) == ["mine"]


def test_a_model_and_a_cluster_may_be_varied_and_conditionals_follow(spec_path: Path) -> None:
    matrix = (
        '[[matrix]]\n"model.preset" = ["tiny", "internlm2-7b"]\n"cluster.gpu" = ["cpu", "h100"]\n'
        '[[when]]\ncluster = { gpu = "h100" }\nset = { run = { seed = 5 } }\n'
    )
    found = [loaded.spec for loaded in members(spec_path, matrix)]
    assert [(spec.model.layers, spec.run.seed) for spec in found if spec] == [
        (4, 1024), (4, 5), (32, 1024), (32, 5),
    ]  # fmt: skip


def test_a_value_knows_its_entry_and_a_mistake_its_place(spec_path: Path) -> None:
    (first, _) = members(spec_path, '[[matrix]]\n"topology.tensor" = [1, 2]\n')
    origin = first.origins.at(("topology", "tensor"))
    assert (origin.kind, origin.text) == ("matrix", f"matrix[0] {spec_path}:17")
    spec_path.write_text(SPEC + '[[matrix]]\n"topology.tensor" = [1, 0]\n', encoding="utf-8")
    right, wrong = load_members(spec_path)
    assert right.diagnostics == []
    assert [found.span for found in wrong.diagnostics] == [Span(str(spec_path), 17, 25, 17, 26)]


@pytest.mark.parametrize("only", ["mine-tensor_2", "tensor_2", "1"])
def test_one_member_is_chosen(only: str, spec_path: Path) -> None:
    members(spec_path, '[[matrix]]\n"topology.tensor" = [1, 2]\n')
    loaded = load(spec_path, only=only)
    assert loaded.spec is not None
    assert loaded.spec.run.name == "mine-tensor_2"


@pytest.mark.parametrize(
    ("only", "said"),
    [
        (None, "is a sweep of 4"),
        ("tensor_3", "no member of the sweep is called"),
        ("9", "no member"),
        ("seed_1", "may mean 2 members"),
    ],
)
def test_nothing_is_chosen_by_chance(only: str | None, said: str, spec_path: Path) -> None:
    members(spec_path, '[[matrix]]\n"topology.tensor" = [1, 2]\n"run.seed" = [1, 2]\n')
    loaded = load(spec_path, only=only)
    assert loaded.spec is None
    assert [(found.code, said in found.message) for found in loaded.diagnostics] == [("TW120", True)]


def test_a_choice_needs_a_sweep(spec_path: Path) -> None:
    members(spec_path, "")
    assert [found.code for found in load(spec_path, only="0").diagnostics] == ["TW120"]


def test_a_common_mistake_is_told_once_and_another_with_its_members() -> None:
    common, own = Diagnostic("TW110", "a"), Diagnostic("TW115", "b", Span("f", 1, 1, 1, 2))
    found = combined([("x", [common, own]), ("y", [common]), ("z", [own, common])])
    assert [(each.code, each.members) for each in found] == [("TW110", ()), ("TW115", ("x", "z"))]
    assert "only in x, z" in render_text(found, {})
    assert "%0Aonly in x, z" in render_github(found)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ('[[matrix]]\n"topology.tensor" = [1]\ntopology.pipeline = [1]\n[[matrix]]\n', True),
        ('[[matrix]]\n"topology.tensor" = 1\n', False),
        ('[[when]]\ncluster = { nodes = ">=2" }\nset = { phases = { a = { tokens = 1 } }, topology = "auto" }\n', True),
        ('[[when]]\ncluster = { network = { kind = ["ro*"] } }\nset = { run = { seed = 1 } }\n', True),
        ("[[when]]\ncluster = { gpus = 2 }\nset = {}\n", False),
        ("[[when]]\ncluster = {}\nset = { cluster = { nodes = 1 } }\n", False),
        ("[[when]]\ncluster = {}\n", False),
    ],
)
def test_editors_know_both_tables(text: str, right: bool) -> None:
    assert Draft202012Validator(published_schema("spec")).is_valid(tomllib.loads(text)) == right
