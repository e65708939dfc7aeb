"""Which relative paths a glob selects."""

import pytest

from trainwright.spec.globs import selected


@pytest.mark.parametrize(
    ("glob", "path", "matches"),
    [
        ("*.py", "a.py", True),
        ("*.py", "pkg/a.py", False),
        ("**/*.py", "a.py", True),
        ("**/*.py", "pkg/sub/a.py", True),
        ("json/**", "json/a/b.txt", True),
        ("json/**", "jsonx/a", False),
        ("json/**", "json", False),
        ("a/**/z", "a/z", True),
        ("a/**/z", "a/b/c/z", True),
        ("a/**/z", "az", False),
        ("?.txt", "a.txt", True),
        ("?.txt", "ab.txt", False),
        ("[ab].txt", "b.txt", True),
        ("[!ab].txt", "b.txt", False),
        ("[!ab].txt", "c.txt", True),
        ("a+b(1).txt", "a+b(1).txt", True),
        ("[", "[", True),
    ],
)
def test_a_glob_matches_whole_relative_paths(glob: str, path: str, matches: bool) -> None:
    assert selected(path, (glob,), ()) is matches


def test_everything_is_selected_unless_said_otherwise() -> None:
    assert selected("a/b", (), ())
    assert not selected("a/b", (), ("a/**",))
    assert not selected("a/b", ("a/*",), ("**/b",))
