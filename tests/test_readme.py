"""Every command of the README runs, and its spec is a right one."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


COMMANDS = [line for block in blocks("sh") for line in block.splitlines() if line]
# Run by what calls this test (`make test`), by the fixture (`make demo`), and by tests/test_layout.py (the wheel).
RUN_ELSEWHERE = {"make test", "make demo", "pip install ."}


def test_the_readme_names_the_two_commands_that_matter() -> None:
    assert {"make demo", "make test"} <= set(COMMANDS)


@pytest.mark.slow
@pytest.mark.parametrize("command", [command for command in COMMANDS if command not in RUN_ELSEWHERE])
def test_command_runs(command: str, demo: Any) -> None:
    verb, *arguments = shlex.split(command)
    assert verb == "trainwright", f"teach this test to run: {command}"
    if arguments[0] == "init":
        (demo.folder / f"{arguments[1]}.toml").unlink(missing_ok=True)
    done = demo.trainwright(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip()
    assert "Traceback" not in done.stderr


def test_the_readme_spec_is_right(workspace: Any) -> None:
    (spec,) = blocks("toml")
    path = workspace.folder / "examples" / "readme.toml"
    path.write_text(spec, encoding="utf-8")
    assert len(spec.splitlines()) <= 22
    done = workspace.trainwright("check", str(path))
    assert done.returncode == 0, done.stderr


def test_pictures_and_links_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (Path(__file__).parents[1] / target).exists(), target
