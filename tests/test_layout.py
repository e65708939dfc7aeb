"""The house as a tested fact: who imports whom, the links of the door, and what the wheel holds."""

import ast
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import networkx as nx
import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("spec", "compiler", "runtime", "kernels", "schemas")
MAY_IMPORT = {
    "spec": {"schemas"},
    "kernels": set(),
    "compiler": {"spec"},
    "runtime": {"spec", "kernels"},
    "schemas": set(),
}
TORCH = {"torch", "megatron", "numpy", "sentencepiece", "transformers"}


def modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imports(path: Path, *, at_top_only: bool = False) -> Iterator[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.iter_child_nodes(tree) if at_top_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("folder", FOLDERS)
def test_folders_import_only_what_they_may(folder: str) -> None:
    for path in modules(folder):
        for name in imports(path):
            if name.startswith("trainwright.") and (top := name.split(".")[1]) in FOLDERS:
                assert top == folder or top in MAY_IMPORT[folder], f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("folder", ["spec", "compiler"])
def test_the_compiler_never_imports_torch_and_numpy_for_the_search_alone(folder: str) -> None:
    for path in modules(folder):
        prices_many = path.is_relative_to(ROOT / "compiler/search") or path == ROOT / "compiler/cost/numeric.py"
        # The search is itself imported by those alone who need it; the formulas meet an array only if it made one.
        allowed = {"numpy"} if prices_many else set()
        for name in imports(path):
            assert name.split(".")[0] not in TORCH - allowed, f"{path.relative_to(ROOT)} imports {name}"


def test_modules_import_each_other_without_cycles() -> None:
    names = {
        f"trainwright.{path.relative_to(ROOT).with_suffix('').as_posix().replace('/', '.')}": path
        for folder in FOLDERS
        for path in modules(folder)
    }
    graph = nx.DiGraph()
    for module, path in names.items():
        for name in imports(path, at_top_only=True):
            target = name if name in names else name.rpartition(".")[0]
            if target in names:
                graph.add_edge(module, target)
    assert list(nx.simple_cycles(graph)) == []


def test_no_pass_imports_another_pass() -> None:
    for path in modules("compiler/passes"):
        assert not [name for name in imports(path) if name.startswith("trainwright.compiler.passes")], path


def test_inner_folders_have_no_init_file() -> None:
    assert [path for folder in FOLDERS for path in (ROOT / folder).rglob("__init__.py")] == []


def test_the_door_links_to_the_folders() -> None:
    for folder in FOLDERS:
        link = ROOT / "src" / "trainwright" / folder
        assert link.is_symlink()
        assert str(link.readlink()) == f"../../{folder}"


@pytest.mark.slow
def test_the_wheel_holds_one_package_with_all_folders(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    assert {name.split("/")[0] for name in names} == {"trainwright"}
    assert {name.split("/")[1] for name in names if name.count("/") > 1} == set(FOLDERS)
    for data in (
        "spec/presets/tiny.toml",
        "schemas/plan.schema.json",
        "spec/pages/TW101.md",
        "spec/look/look.css",
        "compiler/page/page.html.jinja",
    ):
        assert f"trainwright/{data}" in names
