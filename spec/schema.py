"""The published JSON schemas, made from the types. `python -m trainwright.spec.schema` rewrites `schemas/`."""

from pathlib import Path
from typing import Any

import msgspec

from trainwright.spec import matrix, when
from trainwright.spec.diagnostics import Diagnostic
from trainwright.spec.plan import Plan
from trainwright.spec.spec import Spec

FOLDER = Path(__file__).resolve().parent.parent / "schemas"
_DRAFT = "https://json-schema.org/draft/2020-12/schema"

# Only the elements of arrays come from one layer as a whole; what another table lacks, a preset may give.
_WHOLE = ("Phase", "Evaluation")


DOCUMENTS = ("spec", "plan", "diagnostics")


def published_schema(document: str) -> dict[str, Any]:
    """The schema of one of DOCUMENTS. Raises KeyError for any other name."""
    if document == "spec":
        return _spec_schema()
    titles = {"plan": "A Trainwright plan", "diagnostics": "What `--json` prints for the mistakes of a spec"}
    return _document(document, titles[document], Plan if document == "plan" else list[Diagnostic])


def field_schema(key: str) -> dict[str, Any] | None:
    """What the spec's schema says of `a.b`, elements of arrays and named tables passed through; None if nothing."""
    schema = _spec_schema()
    node: dict[str, Any] | None = _resolved(schema, schema)
    for name in key.split("."):
        node = _member(schema, node, name) if node else None
    return node


def _member(schema: dict[str, Any], node: dict[str, Any], name: str) -> dict[str, Any] | None:
    if node.get("type") == "array":
        node = _resolved(schema, node.get("items", {}))
    found = node["properties"].get(name) if "properties" in node else node.get("additionalProperties")
    return _resolved(schema, found) if isinstance(found, dict) else None


def _resolved(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    """The definition that a `$ref` names, with what stands beside it; of a table or one word, the table's."""
    node = next((option for option in node.get("anyOf", ()) if "$ref" in option), node)
    if "$ref" not in node:
        return node
    definition: dict[str, Any] = schema["$defs"][node["$ref"].removeprefix("#/$defs/")]
    return definition | {key: value for key, value in node.items() if key in ("description", "default")}


def _spec_schema() -> dict[str, Any]:
    """A spec as it is written: any layer of it, so hardly a key is required; quantities are numbers or strings."""
    schema = _document("spec", "A Trainwright spec", Spec)
    for name, definition in schema["$defs"].items():
        if name not in _WHOLE:
            definition.pop("required", None)
    root = schema["$defs"]["Spec"]
    extends = {
        "type": "array",
        "items": {"type": "string"},
        "description": "Specs that this one adds to: files beside it, or `preset:NAME`. Later ones win.",
    }
    tables = root["properties"]
    for table in (root, schema["$defs"]["Phase"]):  # `spec/auto.py` writes the word out
        topology = table["properties"]["topology"]
        table["properties"]["topology"] = {"anyOf": [{"$ref": topology["$ref"]}, {"const": "auto"}]}
    root["properties"] = {"extends": extends, **tables, "when": _when(schema, tables), "matrix": _matrix()}
    written: dict[str, Any] = _as_written(schema)
    return written


def _matrix() -> dict[str, Any]:
    """`[[matrix]]`: arrays of values by path; tables in it are parts of a path."""
    entry = {
        "type": "object",
        "additionalProperties": {"anyOf": [{"type": "array", "minItems": 1}, {"type": "object"}]},
    }
    return {"type": "array", "items": entry, "description": matrix.DESCRIPTION}


def _when(schema: dict[str, Any], tables: dict[str, Any]) -> dict[str, Any]:
    """`[[when]]`: conditions by the keys of `[cluster]`, and any other table; arrays' elements go by name there."""
    by_name = {
        name: {"anyOf": [table, {"type": "object"}]} if table.get("type") == "array" else table
        for name, table in tables.items()
        if name != "cluster"
    }
    described = {name: {"description": words} for name, words in when.DESCRIPTIONS.items()}
    properties = {
        "cluster": described["cluster"] | _condition(schema, {"$ref": "#/$defs/Cluster"}),
        "set": described["set"] | {"type": "object", "properties": by_name, "additionalProperties": False},
    }
    entry = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return {"type": "array", "items": entry}


def _condition(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    """What may be asked of a value: a table asks for its keys, a value for itself, a glob or a comparison."""
    table = _resolved(schema, node)
    if "properties" not in table:
        value: dict[str, Any] = {"type": ["string", "number"]}
        return {"anyOf": [value, {"type": "array", "items": value, "minItems": 1}]}
    asked = {name: _condition(schema, child) for name, child in table["properties"].items()}
    return {"type": "object", "properties": asked, "additionalProperties": False}


def dumps(schema: dict[str, Any]) -> str:
    return msgspec.json.format(msgspec.json.encode(schema), indent=2).decode() + "\n"


def _document(stem: str, title: str, kind: Any) -> dict[str, Any]:
    head = {"$schema": _DRAFT, "$id": f"urn:trainwright:schema:{stem}", "title": title}
    return head | msgspec.json.schema(kind)


def _as_written(node: Any) -> Any:
    """Without null, which TOML does not have, and the defaults of whole tables; quantities may be strings."""
    if isinstance(node, list):
        return [_as_written(item) for item in node]
    if not isinstance(node, dict):
        return node
    kept = {key: _as_written(value) for key, value in node.items() if not (key == "default" and not _is_value(value))}
    if "x-unit" in kept and "type" in kept:
        kept["type"] = ["integer" if kept["x-unit"] == "interval" else "number", "string"]
    options = [option for option in kept.get("anyOf", []) if option != {"type": "null"}]
    if "anyOf" not in kept or len(options) == len(kept["anyOf"]):
        return kept
    del kept["anyOf"]
    if len(options) > 1:
        return {"anyOf": options} | kept
    return options[0] | kept


def _is_value(default: Any) -> bool:
    return default is not None and not isinstance(default, dict)


def main() -> None:
    for document in DOCUMENTS:
        (FOLDER / f"{document}.schema.json").write_text(dumps(published_schema(document)), encoding="utf-8")


if __name__ == "__main__":
    main()
