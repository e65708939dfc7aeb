"""Which files of a repository a file names: imports of Python, includes of C and C++, imports of JavaScript.

Found by regular expressions, as InternLM2's code data were (arXiv 2403.17297, section 3.1.2): code need not parse. What
no file of the repository answers to is somebody else's package and no concern of ours.
"""

import posixpath
import re
from collections.abc import Collection, Iterator
from pathlib import PurePosixPath

_PYTHON = re.compile(
    r"^[ \t]*(?:from[ \t]+(?P<base>\.*[\w.]*)[ \t]+import[ \t]+(?P<names>\([^)]*\)|[^\n#;]+)"
    r"|import[ \t]+(?P<modules>[^\n#;]+))",
    re.MULTILINE,
)
_C = re.compile(r'^[ \t]*#[ \t]*include[ \t]*[<"]([^>"\n]+)[>"]', re.MULTILINE)
_JAVASCRIPT = re.compile(
    r"""(?:\bfrom|\bimport|\brequire[ \t]*\(|\bimport[ \t]*\()[ \t]*['"](\.{1,2}/[^'"\n]*|\.{1,2})['"]"""
)
_C_SUFFIXES = (".c", ".h", ".cc", ".cpp", ".cxx", ".hh", ".hpp", ".hxx", ".cu", ".cuh")
_JAVASCRIPT_SUFFIXES = (".js", ".mjs", ".cjs", ".jsx", ".ts", ".tsx")
_SOURCE_ROOTS = ("src", "lib", "include")


def imports(path: str, text: str, files: Collection[str]) -> set[str]:
    """Those of `files` (relative paths with `/`) that the file at `path` names; never itself."""
    suffix = PurePosixPath(path).suffix.lower()
    if suffix in (".py", ".pyi"):
        found = _python(path, text, files)
    elif suffix in _C_SUFFIXES:
        found = _c(path, text, files)
    elif suffix in _JAVASCRIPT_SUFFIXES:
        found = _javascript(path, text, files)
    else:
        return set()
    return {file for file in found if file != path}


def _python(path: str, text: str, files: Collection[str]) -> Iterator[str]:
    folder = posixpath.dirname(path)
    for match in _PYTHON.finditer(text):
        if match["modules"]:
            for module in match["modules"].split(","):
                name = module.split(" as ")[0].strip()
                yield from _module(name.replace(".", "/"), _roots(folder), files)
            continue
        dots = len(match["base"]) - len(match["base"].lstrip("."))
        base = match["base"].lstrip(".").replace(".", "/")
        # One dot is the file's own package, each further one the package around it.
        roots = [posixpath.normpath(posixpath.join(folder, *[".."] * (dots - 1)))] if dots else _roots(folder)
        for name in match["names"].strip("()").split(","):
            inner = posixpath.join(base, name.split(" as ")[0].split("#")[0].strip())
            # `from a import b`: a file of its own, or something in `a`.
            yield from list(_module(inner, roots, files)) or list(_module(base, roots, files))


def _module(name: str, roots: list[str], files: Collection[str]) -> Iterator[str]:
    """The file of the module `a/b`, sought in the roots in turn; an empty name is the root's own package."""
    for root in roots:
        base = posixpath.normpath(posixpath.join(root, name))
        for file in (f"{base}.py", f"{base}.pyi", posixpath.normpath(f"{base}/__init__.py")):
            if file in files:
                yield file
                return


def _c(path: str, text: str, files: Collection[str]) -> Iterator[str]:
    roots = [posixpath.dirname(path), "", *_SOURCE_ROOTS]
    for match in _C.finditer(text):
        candidates = (posixpath.normpath(posixpath.join(root, match[1])) for root in roots)
        yield from [file for file in candidates if file in files][:1]


def _javascript(path: str, text: str, files: Collection[str]) -> Iterator[str]:
    for match in _JAVASCRIPT.finditer(text):
        base = posixpath.normpath(posixpath.join(posixpath.dirname(path), match[1]))
        candidates = [base, *(f"{base}{s}" for s in _JAVASCRIPT_SUFFIXES)]
        candidates += [posixpath.normpath(f"{base}/index{s}") for s in _JAVASCRIPT_SUFFIXES]
        yield from [file for file in candidates if file in files][:1]


def _roots(folder: str) -> list[str]:
    """Where an absolute import may start: the folders above the file, the nearest first, then the usual roots."""
    parts = PurePosixPath(folder).parts
    above = ["/".join(parts[:count]) for count in range(len(parts), -1, -1)]
    return [*above, *_SOURCE_ROOTS]
