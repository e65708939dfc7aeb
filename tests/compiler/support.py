"""A good spec in pieces, so that a test states only the tables it is about."""

import tomllib
from pathlib import Path

from trainwright.compiler.pipeline import Compiled, compile_spec
from trainwright.spec.load import Loaded, load

TABLES = {
    "run": '[run]\nname = "base"\nprecision = "fp32"\n',
    "model": ("[model]\nlayers = 4\nhidden_size = 64\nheads = 4\nkv_heads = 2\nffn_size = 128\nvocab_size = 512\n"),
    "tokenizer": "[tokenizer]\ntrain = {}\n",
    "data": (
        '[data.sources.books]\npath = "books"\n[data.sources.code]\npath = "code.jsonl"\n'
        "[data.mixtures]\nbase = { books = 0.5, code = 0.5 }\n"
    ),
    "phases": (
        '[[phases]]\nname = "short"\ntokens = "64Ki"\nsequence_length = 128\ntokens_per_step = "4Ki"\n'
        'mixture = "base"\nlearning_rate = { peak = 1e-3 }\n'
    ),
}


def two_phases(long: int) -> str:
    """The base spec's phase, and after it one of sequences of `long` tokens."""
    second = f'name = "long"\ntokens = "64Ki"\nsequence_length = {long}\nmixture = "base"\n'
    return f"{TABLES['phases']}\n[[phases]]\n{second}"


def write_spec(folder: Path, fragment: str = "") -> Path:
    """The base spec with the fragment's tables in place of its own, and the text it reads. The fragment comes first."""
    (folder / "books").mkdir(parents=True, exist_ok=True)
    (folder / "books" / "one.txt").write_text("It was a truth.\n")
    (folder / "books" / "two.txt").write_text("Universally acknowledged.\n")
    (folder / "code.jsonl").write_text('{"text": "def f(): pass"}\n')
    (folder / "tokenizer.model").write_bytes(b"pieces")
    stated = set(tomllib.loads(fragment))
    rest = "\n".join(text for name, text in TABLES.items() if name not in stated)
    path = folder / "spec.toml"
    path.write_text(f"{fragment}\n{rest}")
    return path


def compile_fragment(folder: Path, fragment: str = "", *sets: str) -> tuple[Loaded, Compiled]:
    """The base spec with the fragment, loaded and compiled."""
    loaded = load(write_spec(folder, fragment), sets)
    return loaded, compile_spec(loaded)
