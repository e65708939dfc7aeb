"""Which files a source consists of, and in which order."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from trainwright.runtime.data.errors import DataError
from trainwright.runtime.data.files import source_files
from trainwright.spec.files import local_files
from trainwright.spec.plan import SourcePlan

Source = Callable[..., SourcePlan]


def _fill(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def test_a_folder_gives_its_files_by_name_and_nothing_hidden(tmp_path: Path, source: Source) -> None:
    _fill(tmp_path, "b/z.txt", "b.txt", "a.txt", ".git/config", "b/.hidden", "b/__pycache__/x.pyc")
    names = [file.name for file in source_files(source("s", "."), tmp_path)]
    assert names == ["a.txt", "b.txt", "b/z.txt"]


@pytest.mark.parametrize(
    ("path", "include", "exclude", "names"),
    [
        ("books", (), (), ["one.txt", "two.txt"]),
        ("books", ("t*",), (), ["two.txt"]),
        ("books", (), ("**/t*",), ["one.txt"]),
        ("b*/*.txt", (), (), ["books/one.txt", "books/two.txt"]),
        ("b*/*.txt", (), ("**/one*",), ["books/two.txt"]),
        ("books/o??.txt", (), (), ["one.txt"]),
        ("books/one.txt", (), ("one*",), []),
    ],
)
def test_compiler_and_runtime_see_the_same_files(
    path: str, include: tuple[str, ...], exclude: tuple[str, ...], names: list[str], tmp_path: Path
) -> None:
    _fill(tmp_path, "books/one.txt", "books/two.txt")
    assert [file.name for file in local_files(tmp_path, path, include, exclude)] == names


def test_a_glob_names_files_from_its_first_wild_card(tmp_path: Path, source: Source) -> None:
    _fill(tmp_path, "x/1/b.txt", "x/2/a.txt", "x/2/a.md")
    names = [file.name for file in source_files(source("s", "x/**/*.txt"), tmp_path)]
    assert names == ["1/b.txt", "2/a.txt"]


def test_include_and_exclude_select_within_the_folder(tmp_path: Path, source: Source) -> None:
    _fill(tmp_path, "a/1.py", "a/2.py", "b/3.py", "b/3.txt")
    chosen = source_files(source("s", ".", include=("**/*.py",), exclude=("a/2*",)), tmp_path)
    assert [file.name for file in chosen] == ["a/1.py", "b/3.py"]


def test_the_standard_library_is_python_sources_without_other_peoples(source: Source) -> None:
    names = [file.name for file in source_files(source("s", "python://stdlib"), Path())]
    assert {"json/__init__.py", "os.py"} <= set(names)
    assert all(name.endswith(".py") for name in names)
    assert not any("site-packages" in name or "__pycache__" in name for name in names)


def test_urls_go_through_fsspec(tmp_path: Path, source: Source) -> None:
    pytest.importorskip("fsspec")
    _fill(tmp_path, "d/b.txt", "d/a/c.txt", "d/.hidden")
    base = tmp_path.as_uri()
    assert [f.name for f in source_files(source("s", f"{base}/d"), Path())] == ["a/c.txt", "b.txt"]
    assert [f.name for f in source_files(source("s", f"{base}/d/*.txt"), Path())] == ["b.txt"]
    (single,) = source_files(source("s", f"{base}/d/b.txt"), Path())
    assert (single.name, single.size_bytes) == ("b.txt", len("d/b.txt"))


@pytest.mark.parametrize("path", ["gone.txt", "gone/*.txt", "file:///gone.txt", "nosuch://x/y"])
def test_a_missing_path_is_one_sentence(path: str, tmp_path: Path, source: Source) -> None:
    with pytest.raises(DataError, match=r"source `s`: .*(gone|nosuch)"):
        source_files(source("s", path), tmp_path)


def test_a_url_without_fsspec_says_what_to_install(monkeypatch: pytest.MonkeyPatch, source: Source) -> None:
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(DataError, match="pip install fsspec"):
        source_files(source("s", "s3://bucket/x"), Path())


def test_selecting_nothing_is_an_error(tmp_path: Path, source: Source) -> None:
    _fill(tmp_path, "a.txt")
    with pytest.raises(DataError, match="none that is selected"):
        source_files(source("s", ".", include=("*.md",)), tmp_path)
