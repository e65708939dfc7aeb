"""Every key of the language, written into a spec as comments: `trainwright init --full`.

    #key = value   what holds as long as nobody writes it: of the preset, else the default
    # key = value  an example of what is not there unless somebody writes it

Keys, values and meanings come from the types, so none is missing and none is out of date.
"""

import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import inspect, structs

from trainwright.spec import matrix, units, when
from trainwright.spec.expect import described
from trainwright.spec.spec import Spec
from trainwright.spec.topology import TopologyOverride

_HEADER = re.compile(r"\[\[?([^\]]+)\]\]?")
_MEANING_COLUMN = 44
_LEGEND = """\
# Every key there is. A line that begins with `#` and a key says what holds as it is: take the `#` away to change it.
# A line that begins with `#` and a space is an example of what is not there.
"""
_FORMATS: dict[str | None, Callable[[Any], str]] = {
    "bytes": units.format_bytes,
    "seconds": units.format_seconds,
    "tokens": units.format_count,
    "bandwidth": lambda bytes_per_s: f"{bytes_per_s / 1e9:g}GB/s",
}


@dataclass
class _Block:
    """A header of the short spec with the lines above it that belong to it, and the lines below it."""

    header: str  # empty before the first
    lines: list[str]

    @property
    def name(self) -> str:
        match = _HEADER.match(self.header.rpartition("\n")[2])
        return match[1].strip() if match else ""

    @property
    def text(self) -> str:
        return "\n".join([*([self.header] if self.header else []), *self.lines]).strip("\n")


def with_every_key(short: str, preset: dict[str, Any]) -> str:
    """The spec `short` with all keys that it does not give as comments in their tables; `preset` is what it extends."""
    preamble, *blocks = _blocks(short)
    written = {name: [block for block in blocks if block.name.partition(".")[0] == name] for name in _tables()}
    parts = [preamble.text, _LEGEND.strip()]
    for name, kind in _tables().items():
        parts += [block.text for block in _section((name,), kind, written[name], preset.get(name, {}))]
    parts += [_example(when.__doc__), _example(matrix.__doc__)]
    return "\n\n".join(parts) + "\n"


def _tables() -> dict[str, Any]:
    spec: Any = inspect.type_info(Spec)
    return {field.encode_name: field.type for field in spec.fields}


def _blocks(text: str) -> list[_Block]:
    """The text cut at its headers; a comment right above a header goes with what is below it."""
    blocks = [_Block("", [])]
    for line in text.splitlines():
        if _HEADER.match(line):
            above: list[str] = []
            while blocks[-1].lines and blocks[-1].lines[-1].startswith("#") and blocks[-1].header:
                above.insert(0, blocks[-1].lines.pop())
            blocks.append(_Block("\n".join([*above, line]), []))
        else:
            blocks[-1].lines.append(line)
    for block in blocks:
        block.lines = "\n".join(block.lines).strip("\n").split("\n")
    return blocks


# --- sections --------------------------------------------------------------------------------------------------------


def _section(path: tuple[str, ...], annotated: Any, blocks: list[_Block], preset: Any) -> Iterator[_Block]:
    """The blocks of a table with what they lack; a block of comments where none is written."""
    kind, _ = bare(annotated)
    name = ".".join(path)
    own = [block for block in blocks if block.name == name]
    if isinstance(kind, inspect.VarTupleType):
        yield from _elements(name, kind.item_type, own)
    elif isinstance(kind, inspect.StructType) and all(_is_optional_table(field.type) for field in kind.fields):
        for field in kind.fields:
            yield from _section((*path, field.encode_name), field.type, blocks, None)
    elif own:
        yield _completed(own[0], kind, preset, set())
    else:
        active = not _is_optional_table(annotated)
        lines = _lines(kind, set(), preset, active=active)
        yield _Block(f"{'#' if active else '# '}[{name}]", lines)
    if isinstance(kind, inspect.StructType):
        yield from _named_tables(path, kind, blocks)


def _named_tables(path: tuple[str, ...], kind: Any, blocks: list[_Block]) -> Iterator[_Block]:
    """Tables of tables by name: the first gets the keys that it lacks, for all of them."""
    for field in kind.fields:
        table, _ = bare(field.type)
        if not _is_named_tables(table):
            continue
        name = ".".join((*path, field.encode_name))
        written = [block for block in blocks if block.name == name or block.name.startswith(f"{name}.")]
        element, _ = bare(table.value_type)
        if isinstance(element, inspect.StructType) and written:
            written[0] = _completed(written[0], element, {}, set())
        yield from written


def _elements(name: str, kind: Any, blocks: list[_Block]) -> Iterator[_Block]:
    """The elements of an array of tables: the first of each `kind` gets what it lacks; unseen kinds are examples."""
    fields = {field.encode_name: field for field in kind.fields}
    choices = [str(value) for value in getattr(bare(fields["kind"].type)[0], "values", ())] if "kind" in fields else []
    seen = set()
    for block in blocks:
        choice = str(tomllib.loads("\n".join(block.lines)).get("kind", ""))
        if choice not in seen:
            others = [name for name, field in fields.items() if _kind_of(field, choices) not in (None, choice)]
            block = _completed(block, kind, {}, set(others))
        seen.add(choice)
        yield block
    for choice in [*choices, *([] if choices or blocks else [""])]:
        if choice not in seen:
            others = [name for name, field in fields.items() if _kind_of(field, choices) not in (None, choice)]
            values = {"kind": choice} if choice else {}
            yield _Block(f"# [[{name}]]", _lines(kind, set(others), values, active=False))


def _kind_of(field: Any, choices: list[str]) -> str | None:
    """The kind that alone has this key: the word before the colon of its meaning."""
    word = _meaning(field).partition(":")[0]
    return word if word in choices else None


def _completed(block: _Block, kind: Any, preset: Any, not_here: set[str]) -> _Block:
    """The block with comments for the keys that it does not give."""
    lines, given = _dotted(block, kind)
    return _Block(block.header, lines + _lines(kind, given | not_here, preset, active=True))


# --- keys ------------------------------------------------------------------------------------------------------------


def _lines(kind: Any, given: set[str], preset: Any, *, active: bool, prefix: str = "") -> list[str]:
    """A line for each key of the table that is not given; keys of tables in it are dotted."""
    lines: list[str] = []
    for field in kind.fields:
        key = prefix + field.encode_name
        inner, extra = bare(field.type)
        if key in given or _is_named_tables(inner):
            continue
        value = preset.get(field.encode_name, msgspec.UNSET) if isinstance(preset, dict) else msgspec.UNSET
        if isinstance(inner, inspect.StructType) and not is_override(inner):
            is_given = value is not msgspec.UNSET or any(name.startswith(f"{key}.") for name in given)
            holds = active and (is_given or not _is_optional_table(field.type))
            values = value if isinstance(value, dict) else _plain(_default(field))
            lines += _lines(inner, given, values, active=holds, prefix=f"{key}.")
            continue
        if value is msgspec.UNSET:
            value = _default(field)
        holds = active and value is not None and not isinstance(inner, inspect.StructType)
        if not holds and (value in (None, ()) or isinstance(inner, inspect.StructType)):
            value = _examples(field)[0]
        lines.append(_line(key, value, extra.get("unit"), field, holds=holds))
    return lines


def _line(key: str, value: Any, unit: str | None, field: Any, *, holds: bool) -> str:
    code = f"{'#' if holds else '# '}{key} = {toml_value(value, unit)}"
    takes = described(field.type)
    words = takes.removeprefix("one of ") if takes.startswith("one of") else ""
    choices = f" ({words})" if words and words not in _meaning(field) else ""
    return f"{code:<{_MEANING_COLUMN}}  # {_meaning(field)}{choices}"


def _dotted(block: _Block, kind: Any) -> tuple[list[str], set[str]]:
    """The block's lines, inline tables of the language's own as dotted keys, and all keys that they give."""
    tables = {field.encode_name for field in kind.fields if _is_table(field.type)}
    lines: list[str] = []
    given: set[str] = set()
    for line in block.lines:
        key, equals, _ = line.partition(" = ")
        if not equals or line.startswith("#"):
            lines.append(line)
        elif key in tables and isinstance(value := tomllib.loads(line)[key], dict):
            written = [f"{key}.{name} = {toml_value(inner)}" for name, inner in value.items()]
            lines += [written[0] + line.rpartition("}")[2], *written[1:]]
            given |= {f"{key}.{name}" for name in value}
        else:
            lines.append(line)
            given.add(key)
    return lines, given


def bare(kind: Any) -> tuple[Any, dict[str, Any]]:
    """The type without annotations and None, and what the annotations say."""
    extra: dict[str, Any] = {}
    while isinstance(kind, inspect.Metadata | inspect.UnionType):
        if isinstance(kind, inspect.Metadata):
            extra |= kind.extra or {}
            kind = kind.type
        else:
            kind = next(option for option in kind.types if not isinstance(option, inspect.NoneType))
    return kind, extra


def _is_table(kind: Any) -> bool:
    return isinstance(bare(kind)[0], inspect.StructType)


def _is_optional_table(kind: Any) -> bool:
    while isinstance(kind, inspect.Metadata):
        kind = kind.type
    return _is_table(kind) and isinstance(kind, inspect.UnionType)


def _is_named_tables(kind: Any) -> bool:
    """Whether it is a table of tables, each under a name of the user's."""
    return isinstance(kind, inspect.DictType) and isinstance(
        bare(kind.value_type)[0], inspect.StructType | inspect.DictType
    )


def is_override(kind: Any) -> bool:
    """Whether the table only repeats keys of another one: an example says enough of it."""
    return isinstance(kind, inspect.StructType) and kind.cls is TopologyOverride


def _default(field: Any) -> Any:
    """None for a required key."""
    if field.default is not msgspec.NODEFAULT:
        return field.default
    return field.default_factory() if field.default_factory is not msgspec.NODEFAULT else None


def _plain(value: Any) -> Any:
    """A default struct's own values by key."""
    if not isinstance(value, msgspec.Struct):
        return value
    return {field.encode_name: getattr(value, field.name) for field in structs.fields(value)}


def _of_schema(field: Any, name: str) -> Any:
    kind, found = field.type, None
    while isinstance(kind, inspect.Metadata):
        found = found or (kind.extra_json_schema or {}).get(name)
        kind = kind.type
    return found


def _meaning(field: Any) -> str:
    return str(_of_schema(field, "description") or described(field.type))


def _examples(field: Any) -> list[Any]:
    examples: list[Any] | None = _of_schema(field, "examples")
    if not examples:
        raise TypeError(f"`{field.encode_name}` has no default: its type needs `Meta(examples=[...])`")
    return examples


def toml_value(value: Any, unit: str | None = None) -> str:
    """The value as TOML, a quantity with its unit where that is exact."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, dict):
        inner = ", ".join(f"{key} = {toml_value(each)}" for key, each in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, tuple | list):
        return f"[{', '.join(toml_value(each) for each in value)}]"
    if unit in _FORMATS and value:
        text = _FORMATS[unit](value)
        if not text[-1].isdigit() and units.quantity(text, str(unit)) == value:
            return f'"{text}"'
    return f"{value:_}" if isinstance(value, int) and value >= 10_000 else f"{value:.12g}"


def _example(text: str | None) -> str:
    """The example of a module's documentation as a comment, with its first sentence above."""
    title, example, _ = (text or "").split("\n\n", 2)
    lines = [line.strip() for line in example.splitlines()]
    return "\n".join(f"# {line}" for line in [title, *lines])
