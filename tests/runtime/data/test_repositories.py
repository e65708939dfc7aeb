"""Repositories joined in the order of their imports."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainwright.runtime.data.errors import DataError
from trainwright.runtime.data.imports import imports
from trainwright.runtime.data.repositories import order

TREE = {
    "README.md": "# A tree\n",
    "docs/usage.md": "Usage\n",
    "pkg/NOTES.txt": "notes\n",
    "pkg/__init__.py": "from pkg.app import main\n",
    "pkg/app.py": "import os, pkg.tools.text as t\nfrom . import settings\nfrom .ring import b  # a cycle\n",
    "pkg/settings.py": "VALUE = 1\n",
    "pkg/tools/__init__.py": "",
    "pkg/tools/text.py": "from ..settings import (\n    VALUE,  # comment\n)\n",
    "pkg/ring/__init__.py": "",
    "pkg/ring/a.py": "from .b import x\n",
    "pkg/ring/b.py": "from pkg.ring import c\n",
    "pkg/ring/c.py": "import pkg.ring.a\n",
    "aaa.py": "import pkg.app\n",
}


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("pkg/app.py", TREE["pkg/app.py"], {"pkg/tools/text.py", "pkg/settings.py", "pkg/ring/b.py"}),
        ("pkg/tools/text.py", TREE["pkg/tools/text.py"], {"pkg/settings.py"}),
        ("aaa.py", "if x:\n    import numpy, pkg.settings\n", {"pkg/settings.py"}),
        ("pkg/app.py", "from .tools import missing\nfrom . import *\n", {"pkg/tools/__init__.py", "pkg/__init__.py"}),
        ("pkg/app.py", "# import aaa\nimport pkg.app\ntext = 'import aaa'\n", set()),
        (
            "src/main.c",
            '#include "util.h"\n#  include <lib/x.h>\n#include <stdio.h>\n',
            {"src/util.h", "include/lib/x.h"},
        ),
        (
            "web/a.ts",
            "import {b} from './b'\nconst c = require(\"../lib\")\nimport 'react'\n",
            {"web/b.ts", "lib/index.js"},
        ),
        ("notes.md", "import pkg.app\n", set()),
    ],
)
def test_imports_are_files_of_the_repository(path: str, text: str, expected: set[str]) -> None:
    files = {*TREE, "src/main.c", "src/util.h", "include/lib/x.h", "web/a.ts", "web/b.ts", "lib/index.js"}
    assert imports(path, text, files) == expected


def test_a_file_comes_after_what_it_imports_and_a_cycle_stands_together() -> None:
    expected = [
        "docs/usage.md",
        "pkg/ring/a.py",
        "pkg/ring/b.py",
        "pkg/ring/c.py",
        "pkg/NOTES.txt",
        "pkg/settings.py",
        "pkg/tools/text.py",
        "pkg/app.py",
        "README.md",
        "aaa.py",
        "pkg/__init__.py",
        "pkg/ring/__init__.py",
        "pkg/tools/__init__.py",
    ]
    assert order(TREE) == expected
    assert order(dict(reversed(TREE.items()))) == expected


def _write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def test_ingest_joins_repositories_and_tells_what_was_left_out(
    source: Callable[..., Any], run_ingest: Callable[..., Any], tmp_path: Path
) -> None:
    one = {
        "a.py": "import b\n",
        "b.py": "B = 1",
        "c.py": "C = '" + "x" * 100 + "'\n",
        "d.py": "D = 2\n",
        "empty.py": "",
    }
    files = {f"one/{name}": text for name, text in one.items()}
    _write(tmp_path / "repos", files | {"two/x.js": "var x\n", "alone.py": "pass\n", "one-more/y.py": "y = 1\n"})
    for workers in (1, 2):
        ingested = run_ingest(source("code", "repos", kind="code", repository_bytes=60), root=tmp_path, workers=workers)
        documents = ingested.documents("code")
        assert {document.path: document.text for document in documents} == {
            None: "# alone.py\npass\n",
            "one-more": "# y.py\ny = 1\n",
            "one": "# d.py\nD = 2\n",
            "two": "// x.js\nvar x\n",
        }
        first = next(document.text for document in documents if document.path == "one")
        assert first == "# b.py\nB = 1\n\n# a.py\nimport b\n"
        assert ingested.sources["code"]["bad_rows"] == {
            "beyond the length of its repository's document": 1,
            "empty": 1,
        }
        assert "one/c.py: beyond the length of its repository's document" in ingested.sources["code"]["first_bad_rows"]


def test_json_lines_name_their_repository(
    source: Callable[..., Any], run_ingest: Callable[..., Any], tmp_path: Path
) -> None:
    rows: list[dict[str, Any]] = [
        {"repo": "me/first", "path": "a.py", "text": "import b\n"},
        {"repo": "me/first", "path": "b.py", "text": "B = 1\n"},
        {"repo": "me/first", "path": "b.py", "text": "B = 2\n"},
        {"repo": "me/second", "path": "z.py", "text": "Z = 1\n"},
        {"path": "z.py", "text": "Z = 1\n"},
        {"repo": 7, "path": "z.py", "text": "Z = 1\n"},
    ]
    place = tmp_path / "code.jsonl"
    place.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code = source("code", "code.jsonl", kind="code", repository_bytes=1000)
    ingested = run_ingest(code, root=tmp_path)
    assert {d.path: d.text for d in ingested.documents("code")} == {
        "me/first": "# b.py\nB = 1\n\n# a.py\nimport b\n",
        "me/second": "# z.py\nZ = 1\n",
    }
    assert ingested.sources["code"]["bad_rows"] == {
        "`text` or `repo` or `path` is not a string": 1,
        "no key `repo`": 1,
        "twice in its repository": 1,
    }
    place.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    with pytest.raises(DataError, match="`me/first` are not next to one another"):
        run_ingest(code, root=tmp_path)
