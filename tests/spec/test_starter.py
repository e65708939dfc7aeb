"""What `init` writes: a right spec, and with `--full` every key of the language, each line of it usable."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import inspect

from trainwright.compiler.pipeline import compile_spec
from trainwright.spec.layers import known_presets
from trainwright.spec.load import load
from trainwright.spec.spec import Spec
from trainwright.spec.starter import starter
from trainwright.spec.topology import TopologyOverride

HOLDS = re.compile(r"#(?=[\w\[])")  # `#key = value`, `#[table]`
EXAMPLE = re.compile(r'# (?=\[?\[?[\w."\[\]]+( = |\]))')  # `# key = value`, `# [table]`


def is_example(line: str) -> bool:
    return EXAMPLE.match(line) is not None


def uncommented(lines: list[str]) -> str:
    return "\n".join(HOLDS.sub("", line, count=1) if HOLDS.match(line) else line for line in lines) + "\n"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("preset", known_presets())
def test_a_starter_is_right_as_it_is(preset: str, tmp_path: Path) -> None:
    compiled = compile_spec(load(written(tmp_path, starter("mine", preset))))
    assert [found for found in compiled.diagnostics if found.severity == "error"] == []
    assert compiled.plan is not None
    assert compiled.plan.name == "mine"


@pytest.mark.parametrize("preset", known_presets())
def test_with_all_that_holds_written_out_it_is_the_same_spec(preset: str, tmp_path: Path) -> None:
    short = load(written(tmp_path, starter("mine", preset))).spec
    full = starter("mine", preset, full=True).splitlines()
    loaded = load(written(tmp_path, uncommented(full)))
    assert loaded.diagnostics == []
    assert loaded.spec == short
    assert compile_spec(loaded).plan is not None


def examples(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Each example alone uncommented: a line, or a table with its lines."""
    index = 0
    while index < len(lines):
        end = index + 1
        if is_example(lines[index]):
            while lines[index].startswith("# [") and end < len(lines) and lines[end].startswith("# "):
                end += 1
            block = [line.removeprefix("# ") for line in lines[index:end]]
            yield block[0], uncommented([*lines[:index], *block, *lines[end:]])
        index = end


@pytest.mark.parametrize("preset", ["tiny", "internlm2-7b"])
def test_every_example_can_be_taken_as_it_is(preset: str, tmp_path: Path) -> None:
    found = list(examples(starter("mine", preset, full=True).splitlines()))
    assert len(found) > 20
    for line, text in found:
        loaded = load(written(tmp_path, text), only="0" if line.startswith("[[matrix]]") else None)
        assert loaded.diagnostics == [], line


@pytest.mark.parametrize("preset", known_presets())
def test_every_key_of_the_language_is_there(preset: str) -> None:
    there = set(keys_of(starter("mine", preset, full=True)))
    assert [key for key in keys_of_types(inspect.type_info(Spec), "") if key not in there] == []


def keys_of(text: str) -> Iterator[str]:
    """`table.key` of each line, commented or not; names that are the user's own are NAME."""
    table = ""
    for line in text.splitlines():
        bare = re.sub(r"^# ?", "", line)
        if header := re.match(r"\[\[?([\w.-]+)\]", bare):
            table = re.sub(r"^data\.sources\..*", "data.sources.NAME", header[1]) + "."
            yield table
        elif key := re.match(r"([\w.]+) = ", bare):
            yield table + key[1]


def keys_of_types(kind: Any, name: str) -> Iterator[str]:
    for field in kind.fields:
        bare, path = field.type, f"{name}{field.encode_name}"
        while isinstance(bare, inspect.Metadata | inspect.UnionType):
            inner = bare.type if isinstance(bare, inspect.Metadata) else None
            bare = inner or next(each for each in bare.types if not isinstance(each, inspect.NoneType))
        if isinstance(bare, inspect.VarTupleType) and isinstance(bare.item_type, inspect.StructType):
            bare = bare.item_type
        if isinstance(bare, inspect.StructType) and bare.cls is not TopologyOverride:
            yield from keys_of_types(bare, f"{path}.")
        elif isinstance(bare, inspect.DictType) and path == "data.sources":
            yield from keys_of_types(bare.value_type, "data.sources.NAME.")
        else:
            yield f"{path}." if path == "data.mixtures" else path


def test_every_key_says_what_it_means() -> None:
    full = starter("mine", "tiny", full=True).partition("# `[[when]]`")[0]
    keys = [line for line in full.splitlines() if HOLDS.match(line) or is_example(line)]
    assert [line for line in keys if " = " in line and not re.search(r" {2}# \S", line)] == []
