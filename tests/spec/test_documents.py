"""What is derived from a spec or its types: resolved text, schemas, starters, presets, hardware."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import jsonschema
import pytest

from trainwright.spec import layers, schema
from trainwright.spec.device import known_hardware, load_hardware
from trainwright.spec.diagnostics import Diagnostic, Span
from trainwright.spec.load import load
from trainwright.spec.render import render_json
from trainwright.spec.show import show_spec
from trainwright.spec.spec import Model
from trainwright.spec.starter import starter

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.toml"))

PARAMETERS = {
    "internlm2-1.8b": 1_889_110_016,
    "internlm2-7b": 7_737_708_544,
    "internlm2-20b": 19_861_149_696,
    "internlm-7b": 7_321_948_160,
    "internlm-20b": 20_088_714_240,
}


def count(model: Model) -> int:
    """Parameters from the shapes: embeddings, head, last norm, and per layer attention, SwiGLU and two norms."""
    h, kv = model.hidden_size, (model.kv_heads or model.heads)
    head = model.head_size or h // model.heads
    out = (model.heads + 2 * kv) * head
    bias = out + h if model.attention_bias else 0
    layer = out * h + model.heads * head * h + bias + 3 * h * model.ffn_size + 2 * h
    return 2 * model.vocab_size * h + h + model.layers * layer


@pytest.mark.parametrize("name", PARAMETERS)
def test_presets_have_the_published_number_of_parameters(name: str, tmp_path: Path) -> None:
    path = tmp_path / "spec.toml"
    path.write_text(f'[run]\nname = "x"\n[model]\npreset = "{name}"\n[tokenizer]\npath = "t"\n', encoding="utf-8")
    spec = load(path).spec
    assert spec is not None
    assert count(spec.model) == PARAMETERS[name]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_resolved_spec_read_again_is_the_same(path: Path, tmp_path: Path) -> None:
    loaded = load(path)
    text = show_spec(loaded)
    again = tmp_path / "resolved.toml"
    again.write_text(text, encoding="utf-8")
    assert load(again).spec == loaded.spec
    values = [line for line in text.splitlines() if " = " in line]
    assert all(" # " in line for line in values)


@pytest.mark.parametrize("document", schema.DOCUMENTS)
def test_published_schemas_are_those_of_the_types(document: str) -> None:
    published = (schema.FOLDER / f"{document}.schema.json").read_text(encoding="utf-8")
    made = schema.dumps(schema.published_schema(document))
    assert published == made, "the types have changed: run `python -m trainwright.spec.schema`"
    jsonschema.Draft202012Validator.check_schema(schema.published_schema(document))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_satisfy_the_schema(path: Path) -> None:
    jsonschema.validate(tomllib.loads(path.read_text(encoding="utf-8")), schema.published_schema("spec"))


@pytest.mark.parametrize("preset", layers.known_presets())
def test_presets_and_starters_satisfy_the_schema(preset: str) -> None:
    published = schema.published_schema("spec")
    jsonschema.validate(tomllib.loads(layers.preset_text(preset)), published)
    jsonschema.validate(tomllib.loads(starter("mine", preset)), published)


@pytest.mark.parametrize("key", ["run.nam", "phases.token", "data.sources.x.pth", "modle"])
def test_the_schema_knows_no_key_that_the_reader_does_not(key: str) -> None:
    assert schema.field_schema(key) is None


def test_the_schema_of_a_field_is_found_through_arrays_and_names() -> None:
    described = schema.field_schema("phases.tokens")
    assert described is not None
    assert described["type"] == ["number", "string"]
    assert schema.field_schema("data.sources.any-name.kind") is not None
    assert schema.field_schema("phases.from") is not None


def test_rendered_json_satisfies_its_schema() -> None:
    mistakes = [Diagnostic("TW101", "a", Span("f", 1, 2, 1, 3), "help"), Diagnostic("TW104", "b")]
    jsonschema.validate(json.loads(render_json(mistakes)), schema.published_schema("diagnostics"))


def test_a_starter_of_no_preset_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown preset `nope`"):
        starter("mine", "nope")


def test_every_device_loads() -> None:
    assert {"a100-80gb", "a800-80gb", "h100", "h800", "h200", "b200", "cpu"} <= set(known_hardware())
    for name in known_hardware():
        device = load_hardware(name)
        assert device is not None
        assert (device.memory_bytes is None) == (device.device == "cpu")
    assert load_hardware("../presets/tiny") is None


def test_loading_is_quick_and_light() -> None:
    """No torch, numpy, networkx, rich, tomlkit or jsonschema on the way to a spec."""
    code = (
        "import sys, time; start = time.process_time()\n"
        "from pathlib import Path; from trainwright.spec.load import load; load(Path('examples/internlm2-7b.toml'))\n"
        "print(time.process_time() - start)\n"
        "print(*{'torch', 'numpy', 'networkx', 'rich', 'tomlkit', 'jsonschema'} & set(sys.modules))"
    )
    environ = {key: value for key, value in os.environ.items() if not key.startswith("COV")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environ, capture_output=True, text=True, check=True
    )
    seconds, _, heavy = done.stdout.partition("\n")
    assert heavy.strip() == ""
    assert float(seconds) < 0.2  # of CPU time; measured: 0.07
