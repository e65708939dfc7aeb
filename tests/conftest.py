"""What several tests share: the root, a working copy, and the demo run once."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.worlds import Worlds, forked_worlds

ROOT = Path(__file__).parents[1]
Command = Callable[..., subprocess.CompletedProcess[str]]


def environment() -> dict[str, str]:
    """The environment a user has after activating the virtual environment that runs the tests."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("TRAINWRIGHT_", "NO_COLOR"))}
    return {**kept, "PATH": path, "COLUMNS": "110"}


def pytest_configure() -> None:
    """Each worker of `pytest -n` has cores of its own: teams of threads that share one wait for each other."""
    worker, workers = os.environ.get("PYTEST_XDIST_WORKER"), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if worker is not None and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[int(worker.removeprefix("gw")) :: workers] or cores)


@dataclass(frozen=True)
class Workspace:
    """A folder of its own with the project's examples, and commands that run in it."""

    folder: Path

    def run(self, *command: str, timeout: float = 120, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.folder,
            env=environment() | environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def trainwright(self, *arguments: str, timeout: float = 120, **environ: str) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-m", "trainwright", *arguments, timeout=timeout, **environ)


def make_workspace(folder: Path) -> Workspace:
    shutil.copytree(ROOT / "examples", folder / "examples")
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):  # what `make demo` needs
        shutil.copy2(ROOT / name, folder / name)
    return Workspace(folder)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return make_workspace(tmp_path / "work")


# Of the demo's spec: fewer steps of everything, and no gate, which so short a training does not pass.
_SHORT = {"tokens": '"64Ki"', "epochs": "1", "iterations": "3", "critic_warmup": "1", "gate": ""}


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace in which `make demo` ran, with the virtual environment that runs the tests, and for fewer steps."""
    made = make_workspace(tmp_path_factory.mktemp("demo") / "work")
    spec = made.folder / "examples" / "tiny.toml"
    text = spec.read_text(encoding="utf-8")
    for key, value in _SHORT.items():
        text, found = re.subn(f"^{key} = .*$", f"{key} = {value}" if value else "", text, flags=re.MULTILINE)
        assert found, key
    spec.write_text(text, encoding="utf-8")
    installed = f"{sys.prefix}/.ready"  # the tests' own environment, which is not installed once more
    done = made.run("make", "demo", f"VENV={sys.prefix}", "-o", installed, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return made


@pytest.fixture(scope="session")
def micro(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace in which the micro spec ran once, as `runs/micro`."""
    made = make_workspace(tmp_path_factory.mktemp("micro") / "work")
    shutil.copy(ROOT / "tests" / "cases" / "runs" / "micro.toml", made.folder / "micro.toml")
    done = made.trainwright("run", "micro.toml", "-y", "-q", timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return made


@pytest.fixture(scope="session")
def worlds() -> Iterator[Worlds]:
    """Worlds of several processes, for which torch and Megatron-core are imported once."""
    with forked_worlds() as made:
        yield made
