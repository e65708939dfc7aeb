"""Whether what a plan was made from is still so, and what `run plan.json` does if not."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.compiler.support import compile_fragment, write_spec

from trainwright.compiler.stale import stale_compiler, stale_inputs, stale_specs
from trainwright.spec.plan import OtherVersionError, Plan, decode, encode

OWN_TOKENIZER = '[tokenizer]\npath = "tokenizer.model"\n'


def plan_of(folder: Path, fragment: str = "") -> Plan:
    _, compiled = compile_fragment(folder, fragment)
    assert compiled.plan is not None, compiled.diagnostics
    return compiled.plan


def test_nothing_is_stale_at_first(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, OWN_TOKENIZER)
    assert (stale_inputs(plan, tmp_path), stale_specs(plan, tmp_path), stale_compiler(plan)) == ([], [], None)


def test_changed_text_and_a_changed_or_missing_tokenizer_are_told(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, OWN_TOKENIZER)
    (tmp_path / "books" / "one.txt").write_text("It was another truth.\n")
    (tmp_path / "tokenizer.model").write_bytes(b"other pieces")
    assert stale_inputs(plan, tmp_path) == ["the text of `books` changed", "the tokenizer `tokenizer.model` changed"]
    (tmp_path / "tokenizer.model").unlink()
    assert stale_inputs(plan, tmp_path)[1] == "the tokenizer `tokenizer.model` is gone"


def test_a_spec_is_what_it_says_not_how_it_says_it(tmp_path: Path) -> None:
    plan, spec = plan_of(tmp_path), tmp_path / "spec.toml"
    spec.write_text("# a comment\n" + spec.read_text())
    assert stale_specs(plan, tmp_path) == []
    spec.write_text(spec.read_text().replace('"64Ki"', '"128Ki"'))
    assert stale_specs(plan, tmp_path) == ["spec.toml"]
    spec.unlink()
    assert stale_specs(plan, tmp_path) == []


def test_what_a_spec_extends_belongs_to_it(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text("[run]\nlog_every = 3\n")
    plan = plan_of(tmp_path, 'extends = ["base.toml"]\n')
    assert list(plan.spec_files) == ["spec.toml", "base.toml"]
    (tmp_path / "base.toml").write_text("[run]\nlog_every = 4\n")
    assert stale_specs(plan, tmp_path) == ["base.toml"]


def test_a_plan_of_another_version_is_told_apart_from_none(tmp_path: Path) -> None:
    plan = msgspec.structs.replace(plan_of(tmp_path), version=99)
    with pytest.raises(OtherVersionError, match="99"):
        decode(encode(plan))


def changed(folder: Path, **values: Any) -> None:
    """The workspace's plan.json with other values."""
    path = folder / "plan.json"
    path.write_bytes(encode(msgspec.structs.replace(decode(path.read_bytes()), **values)))


def test_run_refuses_a_plan_of_another_compiler_version_or_spec(workspace: Any) -> None:
    write_spec(workspace.folder)
    assert workspace.trainwright("plan", "spec.toml", "-o", "plan.json").returncode == 0
    spec = workspace.folder / "spec.toml"
    spec.write_text(spec.read_text().replace('"64Ki"', '"128Ki"'))
    done = workspace.trainwright("run", "plan.json")  # nobody answers
    assert done.returncode == 4
    assert "spec.toml changed since plan.json was made" in done.stderr
    changed(workspace.folder, compiler="trainwright 0.0.1")
    done = workspace.trainwright("run", "plan.json", "-y")
    assert (done.returncode, "trainwright 0.0.1" in done.stderr) == (4, True)
    (workspace.folder / "plan.json").write_text('{"version": 99}')
    done = workspace.trainwright("run", "plan.json", "-y")
    assert (done.returncode, "version 99" in done.stderr) == (4, True)
