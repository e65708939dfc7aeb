"""Conditionals: which apply on which cluster, and where they lie among the layers."""

from pathlib import Path

import pytest

from trainwright.spec.diagnostics import Span
from trainwright.spec.load import load

SPEC = """\
extends = ["preset:tiny"]

[run]
name = "mine"
seed = 1

[cluster]
nodes = 16
gpu = "h100"
network = { per_gpu = "200Gb/s" }

[tokenizer]
train = {}

[[phases]]
name = "short"
tokens = "64Ki"
sequence_length = 128
mixture = "m"

[[when]]
cluster = CONDITION
set = { run = { seed = 2 }, phases = { short = { tokens = "1Mi" } } }
"""


def seed(folder: Path, condition: str, *sets: str) -> int:
    path = folder / "spec.toml"
    path.write_text(SPEC.replace("CONDITION", condition), encoding="utf-8")
    loaded = load(path, sets)
    assert loaded.diagnostics == []
    assert loaded.spec is not None
    return loaded.spec.run.seed


@pytest.mark.parametrize(
    ("condition", "applies"),
    [
        ('{ gpu = "h100" }', True),
        ('{ gpu = "h*" }', True),
        ('{ gpu = "a800*" }', False),
        ('{ gpu = ["a100*", "h1*"] }', True),
        ("{ nodes = 16 }", True),
        ('{ nodes = ">=16" }', True),
        ('{ nodes = ">16" }', False),
        ('{ nodes = ">8, <=16" }', True),
        ('{ nodes = "!=16" }', False),
        ("{ nodes = [4, 16] }", True),
        ('{ nodes = ">=16", gpu = "b200" }', False),
        ('{ network = { per_gpu = ">=25GB/s", kind = "infini*" } }', True),
        ('{ failures = { mean_time_between = "<1k gpu-hours" } }', False),
        ('{ price_per_gpu_hour = ">0" }', False),  # nobody gave a price
        ("{}", True),
    ],
)
def test_all_conditions_must_hold(condition: str, applies: bool, tmp_path: Path) -> None:
    assert seed(tmp_path, condition) == (2 if applies else 1)


def test_the_command_line_decides_the_cluster_and_wins(tmp_path: Path) -> None:
    assert seed(tmp_path, '{ gpu = "a800*" }', "cluster.gpu=a800-80gb") == 2
    assert seed(tmp_path, '{ gpu = "h100" }', "cluster.gpu=a800-80gb") == 1
    assert seed(tmp_path, '{ gpu = "h100" }', "run.seed=3") == 3


def test_values_know_their_entry_and_place(tmp_path: Path) -> None:
    seed(tmp_path, '{ gpu = "h100" }')
    path = tmp_path / "spec.toml"
    loaded = load(path)
    origin = loaded.origins.at(("run", "seed"))
    assert (origin.kind, origin.text) == ("when", f"when[0] {path}:23")
    assert loaded.origins.span(("run", "seed")) == Span(str(path), 23, 24, 23, 25)
    assert loaded.spec is not None
    assert loaded.spec.phases[0].tokens == 1 << 20


def test_a_value_may_be_set_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "spec.toml"
    text = SPEC.replace("CONDITION", '{ gpu = "h100" }').replace(
        "run = { seed = 2 }", '"run.seed" = 3, "phases[0].tokens" = 512'
    )
    path.write_text(text.replace(', phases = { short = { tokens = "1Mi" } }', ""), encoding="utf-8")
    spec = load(path).spec
    assert spec is not None
    assert (spec.run.seed, spec.phases[0].tokens) == (3, 512)


def test_a_file_lies_on_the_conditionals_of_what_it_extends(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text(SPEC.replace("CONDITION", '{ gpu = "h100" }'), encoding="utf-8")
    path = tmp_path / "child.toml"
    path.write_text(
        'extends = ["base.toml"]\n[run]\nseed = 4\n'
        "[[when]]\ncluster = { nodes = 16 }\nset = { run = { log_every = 7 } }\n",
        encoding="utf-8",
    )
    spec = load(path).spec
    assert spec is not None
    assert (spec.run.seed, spec.run.log_every, spec.phases[0].tokens) == (4, 7, 1 << 20)


def test_a_conditional_may_choose_the_model(tmp_path: Path) -> None:
    path = tmp_path / "spec.toml"
    text = SPEC.replace("CONDITION", '{ gpu = "h100" }').replace(
        "run = { seed = 2 }", 'model = { preset = "internlm2-7b" }'
    )
    path.write_text(text, encoding="utf-8")
    (spec, other) = (load(path).spec, load(path, ["cluster.gpu=cpu"]).spec)
    assert spec is not None
    assert other is not None
    assert (spec.model.layers, other.model.layers) == (32, 4)


@pytest.mark.parametrize("gpu", ["h100", "cpu"])
def test_mistakes_are_told_on_whatever_cluster(gpu: str, tmp_path: Path) -> None:
    path = tmp_path / "spec.toml"
    text = SPEC.replace("CONDITION", '{ gpu = "h100" }').replace("seed = 2", 'sed = 2, precision = "bf61"')
    path.write_text(text.replace("{ short = {", "{ long = {"), encoding="utf-8")
    found = load(path, [f"cluster.gpu={gpu}"]).diagnostics
    assert [each.code for each in found] == ["TW110", "TW116", "TW107"]


def test_nothing_is_missing_that_a_wrong_conditional_may_give(tmp_path: Path) -> None:
    path = tmp_path / "spec.toml"
    path.write_text(
        'extends = ["preset:tiny"]\n[tokenizer]\ntrain = {}\n'
        '[[when]]\ncluster = { gpu = 1 }\nset = { run = { name = "x" } }\n',
        encoding="utf-8",
    )
    assert [found.code for found in load(path).diagnostics] == ["TW112"]
