"""The smallest value that fits a JSON Schema of the kind we ask models for. Used by `scripted` when it has no script.

Understands what our own schemas use: const, enum, type, properties, items, the length and number bounds, anyOf and local
references. It is no validator.
"""

from __future__ import annotations

from typing import Any

MAX_DEPTH = 32


def smallest(schema: dict[str, Any]) -> Any:
    """A value for `schema`; objects get every declared property, booleans are true."""
    return _value(schema, schema, 0)


def _value(schema: dict[str, Any], root: dict[str, Any], depth: int) -> Any:
    if depth > MAX_DEPTH:
        return None
    for key in ("anyOf", "oneOf", "allOf"):
        if schema.get(key):
            return _value(schema[key][0], root, depth + 1)
    if "$ref" in schema:
        return _value(_resolve(str(schema["$ref"]), root), root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = kind[0]
    return _of_type(str(kind), schema, root, depth)


def _of_type(kind: str, schema: dict[str, Any], root: dict[str, Any], depth: int) -> Any:
    match kind:
        case "object":
            properties = schema.get("properties", {})
            return {name: _value(inner, root, depth + 1) for name, inner in properties.items()}
        case "array":
            return [_value(schema.get("items", {}), root, depth + 1) for _ in range(min(schema.get("minItems", 0), 100))]
        case "string":
            return "scripted".ljust(schema.get("minLength", 0), ".")[: schema.get("maxLength", 10_000)]
        case "integer" | "number":
            return max(schema.get("minimum", 0), schema.get("exclusiveMinimum", -1) + 1)
        case "boolean":
            return True
        case _:
            return None


def _resolve(reference: str, root: dict[str, Any]) -> dict[str, Any]:
    node: Any = root
    for step in reference.removeprefix("#/").split("/"):
        node = node.get(step, {}) if isinstance(node, dict) else {}
    return node if isinstance(node, dict) else {}
