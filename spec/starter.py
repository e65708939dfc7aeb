"""The commented spec that `trainwright init` writes."""

import tomllib
from pathlib import Path

from trainwright.spec.device import known_hardware
from trainwright.spec.layers import known_presets, preset_text

_SCHEMA = Path(__file__).resolve().parent.parent / "schemas" / "spec.schema.json"

_RUN = """#:schema {schema}
# {name}: from raw text to an evaluated, exported model.
# Next: `trainwright check {name}.toml`, then `trainwright plan {name}.toml`, then `trainwright run {name}.toml`.
{more}
extends = ["preset:{preset}"]  # gives what is not written here; `trainwright show {name}.toml` prints every value

[run]
name = "{name}"  # names the folder runs/{name}/

[tokenizer]
train = {{ algorithm = "bpe", byte_fallback = true, split_digits = true }}  # or: path = "tokenizer.model"
"""

_MORE = """\
# Every other key with its meaning: `trainwright init NAME --preset {preset} --full`; docs/spec.md is the reference.
"""

_TINY_DATA = """
[data]
held_out = 0.02  # share of documents kept from training, for evaluation

[data.sources.stdlib]  # your own text is one more table like this one
path = "python://stdlib"  # the running Python's own sources; or a folder, file, glob or fsspec URL
kind = "code"
language = "python"
license = "PSF-2.0"

[data.mixtures]  # weights; they need not sum to one
base = { stdlib = 1.0 }

[[phases]]
name = "pretrain"
tokens = "512Ki"  # 2^19
sequence_length = 128
tokens_per_step = "4Ki"
mixture = "base"
rope_base = 10_000
learning_rate = { peak = 3e-3, final = 3e-4, warmup = "10 steps", decay = "cosine" }
"""

_LARGE_DATA = """
[cluster]
nodes = 16
gpus_per_node = 8
gpu = "h100"  # or {hardware}
network = {{ per_gpu = "400Gb/s", kind = "infiniband" }}

[topology]  # "auto": the fastest that fits; `trainwright plan {name}.toml --search` shows the runners-up
tensor = "auto"
pipeline = "auto"
context = "auto"
recompute = "auto"

[data]
held_out = 0.001  # share of documents kept from training, for evaluation

# Where your text is: local, relative to this file, or any fsspec URL. A remote place is not looked at while planning.
"""

_SOURCE = """[data.sources.{name}]
path = "s3://my-bucket/{name}/*.jsonl.zst"
kind = "{kind}"
license = "unknown"

"""

_SOURCES = {"base": ("web", "code"), "long": ("long-documents",), "enhance": ("selected",)}
_MIXTURES = {
    "base": "base = { web = 0.85, code = 0.15 }",
    "long": "long = { base = 0.5, long-documents = 0.5 }  # mixtures may name mixtures",
    "enhance": "enhance = { selected = 1.0 }",
}

_END = """
[[evaluation]]
kind = "perplexity"
of = [{phases}]

[export]
of = ["{last}"]
formats = ["huggingface"]
"""


def starter(name: str, preset: str, *, full: bool = False) -> str:
    """The text of `NAME.toml`, a right spec; with `full`, every other key as a comment. ValueError if unknown."""
    if preset not in known_presets():
        raise ValueError(f"unknown preset `{preset}`; there are {', '.join(known_presets())}")
    if not full:
        return _short(name, preset, _MORE.format(preset=preset))
    from trainwright.spec.catalogue import with_every_key

    return with_every_key(_short(name, preset, ""), tomllib.loads(preset_text(preset)))


def _short(name: str, preset: str, more: str) -> str:
    start = _RUN.format(schema=_SCHEMA.as_uri(), name=name, preset=preset, more=more)
    if preset == "tiny":
        return start + _TINY_DATA + _END.format(phases='"pretrain"', last="pretrain")
    phases = preset_text(preset).partition("[[phases]]")
    written = phases[1] + phases[2]
    names = [line.split('"')[1] for line in written.splitlines() if line.startswith("name = ")]
    mixtures = [mixture for mixture in _MIXTURES if f'mixture = "{mixture}"' in written]
    sources = [source for mixture in mixtures for source in _SOURCES[mixture]]
    data = "".join(_SOURCE.format(name=source, kind="code" if source == "code" else "text") for source in sources)
    weights = "\n".join(["[data.mixtures]  # weights; they need not sum to one", *(_MIXTURES[m] for m in mixtures)])
    end = _END.format(phases=", ".join(f'"{phase}"' for phase in names), last=names[-1])
    others = ", ".join(device for device in known_hardware() if device != "h100")
    machine = _LARGE_DATA.format(hardware=others, name=name)
    return f"{start}{machine}{data}{weights}\n\n{written}{end}"
