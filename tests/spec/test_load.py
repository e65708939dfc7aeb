"""Layers, origins and spans of a loaded spec."""

from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from trainwright.spec.diagnostics import KeyPath, Span
from trainwright.spec.load import Loaded, load
from trainwright.spec.spec import Spec

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

BASE = """\
[run]
name = "base"
seed = 1
log_every = 2

[topology]
tensor = 2
"""
CHILD = """\
extends = ["base.toml", "preset:tiny"]

[run]
name = "child"

[tokenizer]
train = {}

[[phases]]
name = "a"
tokens = "64Ki"
sequence_length = 128
mixture = "m"

[[phases]]
name = "b"
tokens = "32Ki"
sequence_length = 256
mixture = "m"
from = "a"
"""


@pytest.fixture
def spec_path(tmp_path: Path) -> Path:
    (tmp_path / "base.toml").write_text(BASE, encoding="utf-8")
    path = tmp_path / "spec.toml"
    path.write_text(CHILD, encoding="utf-8")
    return path


def loaded_spec(path: Path, *sets: str, environ: Mapping[str, str] | None = None) -> tuple[Spec, Loaded]:
    loaded = load(path, sets, environ)
    assert loaded.diagnostics == []
    assert loaded.spec is not None
    return loaded.spec, loaded


def test_each_layer_lies_on_the_one_before(spec_path: Path) -> None:
    environ = {"TRAINWRIGHT_SET__run__log_every": "3", "TRAINWRIGHT_SET__run__seed": "4", "OTHER": "5"}
    spec, loaded = loaded_spec(spec_path, "run.seed=6", environ=environ)
    assert (spec.run.precision, spec.run.name, spec.run.log_every, spec.run.seed) == ("fp32", "child", 3, 6)
    assert (spec.topology.tensor, spec.topology.pipeline, spec.model.layers) == (2, 1, 4)

    def origin(*path: str) -> tuple[str, str]:
        found = loaded.origins.at(path)
        return found.kind, found.text

    folder = spec_path.parent
    assert origin("topology", "pipeline") == ("default", "default")
    assert origin("model", "layers") == ("preset", "preset:tiny")
    assert origin("topology", "tensor") == ("file", f"{folder / 'base.toml'}:7")
    assert origin("run", "name") == ("file", f"{spec_path}:4")
    assert origin("run", "log_every") == ("environment", "TRAINWRIGHT_SET__run__log_every")
    assert origin("run", "seed") == ("command line", "-s run.seed=6")


@pytest.mark.parametrize(
    ("path", "of", "place"),
    [
        (("run", "name"), "value", (4, 8, 15)),
        (("run", "name"), "key", (4, 1, 5)),
        (("phases", 1, "from"), "value", (20, 8, 11)),
        (("phases", 1, "rope_base"), "value", (15, 1, 11)),
        (("phases", 1), "value", (15, 1, 11)),
        (("tokenizer", "train", "spare_tokens"), "value", (7, 9, 11)),
        (("alignment", "sft", "data"), "value", (1, 1, 1)),
    ],
)
def test_spans_fall_back_to_the_table_around(spec_path: Path, path: KeyPath, of: str, place: tuple[int, ...]) -> None:
    _, loaded = loaded_spec(spec_path)
    span = loaded.origins.span(path, "key" if of == "key" else "value")
    assert span == Span(str(spec_path), place[0], place[1], place[0], place[2])


def test_overrides_reach_elements_by_name_and_by_index(spec_path: Path) -> None:
    spec, _ = loaded_spec(spec_path, "phases.b.tokens=1Mi", "phases.0.tokens=2048", 'phases.a.name="c"')
    assert [(phase.name, phase.tokens) for phase in spec.phases] == [("c", 2048), ("b", 1 << 20)]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("run.name=plain", "plain"),
        ('run.name="quoted"', "quoted"),
        ("run.name = spaced", "spaced"),
        ("run.name=a#b", None),
        ("run.checkpoint={ every = 5 }", "child"),
    ],
)
def test_a_value_is_toml_or_else_a_string(spec_path: Path, text: str, value: str | None) -> None:
    loaded = load(spec_path, [text])
    assert (loaded.spec.run.name if loaded.spec else None) == value


def test_a_later_array_of_tables_replaces_an_earlier_one(spec_path: Path) -> None:
    with (spec_path.parent / "base.toml").open("a", encoding="utf-8") as base:
        base.write('[[phases]]\nname = "old"\ntokens = 1\nsequence_length = 1\nmixture = "m"\n')
    assert [phase.name for phase in loaded_spec(spec_path)[0].phases] == ["a", "b"]


def test_the_model_of_a_preset_lies_below_what_is_written(spec_path: Path) -> None:
    spec, _ = loaded_spec(spec_path, "model.preset=internlm2-7b", "model.layers=2")
    assert (spec.model.preset, spec.model.layers, spec.model.hidden_size) == ("internlm2-7b", 2, 4096)
    assert spec.run.precision == "fp32"


def test_a_partial_table_keeps_the_defaults_of_the_rest(spec_path: Path) -> None:
    reward = 'alignment.reward={ data = ["p"], learning_rate = { final = 1e-6 } }'
    spec, _ = loaded_spec(spec_path, reward)
    assert spec.alignment.reward is not None
    assert (spec.alignment.reward.learning_rate.peak, spec.alignment.reward.learning_rate.final) == (1e-5, 1e-6)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.stem)
def test_examples_load_and_are_what_msgspec_makes_of_their_values(path: Path) -> None:
    spec, _ = loaded_spec(path)
    assert msgspec.convert(msgspec.to_builtins(spec), Spec, strict=True) == spec


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    for path, said in ((tmp_path / "absent.toml", "no such file"), (tmp_path, "is a directory")):
        (found,) = load(path).diagnostics
        assert said in found.message
        assert found.span is None


def test_the_same_input_gives_the_same_diagnostics(tmp_path: Path) -> None:
    path = tmp_path / "spec.toml"
    path.write_text('[run]\nx = 1\ny = 2\n[model]\npreset = "nope"\n', encoding="utf-8")
    assert load(path, ["a=1"]).diagnostics == load(path, ["a=1"]).diagnostics


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ('[run]\nnam = "x"', ["TW110"]),  # `name` is not missing, it is misspelt
        ('[modle]\npreset = "tiny"', ["TW110"]),
        ('[model]\npreset = "nope"', ["TW106"]),  # no dimension is missing on top
        ("[run]\nname = x", ["TW101"]),
        ("[run\nname = 'x'\nseed = -1", ["TW101"]),
        ('[[phases]]\nname = "a"\ntoken = "1k"\nsequence_length = 1\nmixture = "m"', ["TW110"]),
        ("[topology]\ntensor = 99999999999999999999", ["TW115"]),
        (f"[optimizer]\nclip = 1{'0' * 400}", ["TW115"]),
        (f"[optimizer]\nclip = 1{'0' * 5000}", ["TW101"]),
        ('[[phases]]\nname = "a"\ntokens = "1e999"\nsequence_length = 1\nmixture = "m"', ["TW115"]),
        ('[budget]\ndeadline = "1e999 d"', ["TW115"]),
        (f"x = {'[' * 5000}{']' * 5000}", ["TW101"]),
        ('\ufeff[run]\nname = "x"', ["TW101"]),
    ],
)
def test_one_cause_gives_one_report(text: str, codes: list[str], tmp_path: Path) -> None:
    rest = 'extends = ["preset:tiny"]\n[run]\nseed = 2\n[tokenizer]\ntrain = {}\n'
    (tmp_path / "rest.toml").write_text(rest, encoding="utf-8")
    path = tmp_path / "spec.toml"
    mark, body = ("\ufeff", text[1:]) if text.startswith("\ufeff") else ("", text)
    path.write_text(f'{mark}extends = ["rest.toml"]\n{body}\n', encoding="utf-8")
    sets = [] if "[run" in text else ['run.name="x"']
    assert [diagnostic.code for diagnostic in load(path, sets).diagnostics] == codes
