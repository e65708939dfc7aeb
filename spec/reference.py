"""`docs/spec.md` and `docs/diagnostics.md`, from the types and codes: `python -m trainwright.spec.reference`."""

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect

from trainwright.spec import matrix, when
from trainwright.spec.catalogue import bare, is_override, toml_value
from trainwright.spec.codes import CODES
from trainwright.spec.expect import described
from trainwright.spec.quantity import Bytes, BytesPerSecond, Count, Interval, Name, Seconds, Tokens
from trainwright.spec.spec import Spec

_QUANTITIES: tuple[Any, ...] = (Count, Tokens, Bytes, Seconds, BytesPerSecond, Interval, Name)
_OF_TYPES = {alias.__metadata__[0].description for alias in _QUANTITIES}
_HEAD = "| key | takes | default | what |\n|---|---|---|---|\n"
_NOTE = "<!-- Written by `python -m trainwright.spec.reference`; change the types, not this page. -->\n"


def spec_page() -> str:
    """Every key that a spec may have: what it takes, its default and what it means."""
    intro = (
        "# The spec, key by key\n\n" + _NOTE + "\nQuantities may carry a unit: `4Ki`, `2.34T`, `80GiB`, `30min`, "
        "`200Gb/s`. Relative paths start at the spec's folder. `extends` names files or `preset:NAME` that a spec "
        'adds to, and `[model] preset = "NAME"` takes the dimensions of a named size.\n'
    )
    return intro + "".join(_tables(inspect.type_info(Spec), "")) + _sweeps()


def _sweeps() -> str:
    """The two tables that are gone once a spec is resolved."""
    rows = "".join(f"| `{name}` | a table | required | {words} |\n" for name, words in when.DESCRIPTIONS.items())
    conditionals = (when.__doc__ or "").partition("\n\n")[2]
    members = (matrix.__doc__ or "").partition("\n\n")[2]
    return (
        f"\n## `[[when]]`\n\n{_HEAD}{rows}\n```toml\n{_unindented(conditionals)}"
        f"\n## `[[matrix]]`\n\n{matrix.DESCRIPTION}\n\n```toml\n{_unindented(members)}"
    )


def _unindented(example: str) -> str:
    """The indented example at the start of the text as the end of a block of TOML, and what follows it."""
    code, _, words = example.partition("\n\n")
    return f"{textwrap.dedent(code)}\n```\n\n{words}"


def diagnostics_page() -> str:
    """Every diagnostic, by code; `trainwright explain CODE` prints the whole page of one."""
    rows = "".join(f"| `{row.code}` | {row.name} | {row.severity} | {row.title} |\n" for row in CODES.values())
    head = "| code | name | severity | what |\n|---|---|---|---|\n"
    return f"# Diagnostics\n\n{_NOTE}\n`trainwright explain CODE` prints the page of one.\n\n{head}{rows}"


def _tables(kind: Any, name: str) -> Iterator[str]:
    """The section of a table, then those of the tables inside it."""
    inner: list[tuple[str, Any]] = []
    rows = ""
    for field in kind.fields:
        table, _ = bare(field.type)
        path = f"{name}.{field.encode_name}" if name else field.encode_name
        if isinstance(table, inspect.StructType) and not is_override(table):
            inner.append((path, table))
        elif isinstance(table, inspect.DictType) and isinstance(bare(table.value_type)[0], inspect.StructType):
            inner.append((f"{path}.NAME", bare(table.value_type)[0]))
        elif isinstance(table, inspect.VarTupleType) and isinstance(table.item_type, inspect.StructType):
            inner.append((f"[{path}]", table.item_type))
        else:
            takes = _cell(described(field.type))
            rows += f"| `{field.encode_name}` | {takes} | {_default(field)} | {_words(field)} |\n"
    if rows:
        yield f"\n## `[{name}]`\n\n{_HEAD}{rows}"
    for path, table in inner:
        yield from _tables(table, path)


def _default(field: Any) -> str:
    if field.required:
        return "required"
    default = field.default
    if default is msgspec.NODEFAULT or default is None or default in ((), {}) or isinstance(default, msgspec.Struct):
        return ""
    return f"`{_cell(toml_value(default, bare(field.type)[1].get('unit')))}`"


def _words(field: Any) -> str:
    """The field's own description; that of its type says no more than the column before it."""
    schema = field.type.extra_json_schema if isinstance(field.type, inspect.Metadata) else None
    words = (schema or {}).get("description", "")
    return "" if words in _OF_TYPES else _cell(words)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> None:
    """Both pages are new in the folder `docs` of the folder that this is run in: the root."""
    Path("docs/spec.md").write_text(spec_page(), encoding="utf-8")
    Path("docs/diagnostics.md").write_text(diagnostics_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
