"""What the documentation shows works: files and commands of docs/adding.md."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from trainwright.compiler.draft import Check
from trainwright.compiler.pipeline import PASSES, compile_spec
from trainwright.spec import layers
from trainwright.spec.load import load

ROOT = Path(__file__).parents[1]
ADDING = (ROOT / "docs" / "adding.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^`(\S+\.toml)`:\n\n```toml\n(.*?)^```$", ADDING, re.DOTALL | re.MULTILINE))
COMMANDS = [
    line for block in re.findall(r"^```sh\n(.*?)^```$", ADDING, re.DOTALL | re.MULTILINE) for line in block.splitlines()
]


def write_files(folder: Path) -> None:
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")


def test_its_files_and_commands_work(workspace: Any) -> None:
    write_files(workspace.folder)
    assert len(FILES) == 3
    assert len(COMMANDS) == 2
    for command in COMMANDS:
        done = workspace.trainwright(*shlex.split(command)[1:])
        assert done.returncode == 0, command + done.stderr


def test_its_gpu_is_priced(tmp_path: Path) -> None:
    write_files(tmp_path)
    plan = compile_spec(load(tmp_path / "mine.toml", ["cluster.gpu=example-96gb"])).plan
    assert plan is not None
    assert plan.hardware.memory_bytes == 101_000_000_000
    assert plan.estimates[0].step is not None


def test_its_preset_can_be_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path)
    monkeypatch.setattr(layers, "_PRESETS", tmp_path)
    spec = tmp_path / "other.toml"
    spec.write_text('extends = ["preset:my-3b"]\n[run]\nname = "x"\n[tokenizer]\ntrain = {}\n', encoding="utf-8")
    loaded = load(spec)
    assert loaded.spec is not None
    assert (loaded.spec.model.layers, loaded.spec.phases[0].name) == (28, "4k")


def test_its_pass_runs_among_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", ADDING, re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec(code, names)
    check = names["CHECK_LOG_INTERVAL"]
    assert isinstance(check, Check)
    monkeypatch.setattr("trainwright.compiler.pipeline.PASSES", (*PASSES, check))
    write_files(tmp_path)
    assert compile_spec(load(tmp_path / "mine.toml")).plan is not None
    found = compile_spec(load(tmp_path / "mine.toml", ["run.log_every=10000000"])).diagnostics
    assert "ends before the first line of its log" in "".join(each.message for each in found)


def test_links_lead_somewhere() -> None:
    for page in (ROOT / "docs").glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name}: {target}"
