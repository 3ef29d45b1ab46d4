"""The subset of JSON Schema that vendors accept, and lengths in words where a server misreads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

ANTHROPIC_UNSUPPORTED = (
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
    "minItems",  # above 1
)

LENGTH_CONSTRAINTS = ("minLength", "maxLength")
"""xgrammar, which vLLM uses, allows no escapes in a string of bounded length: no quotation mark, backslash or line
break (measured, 0.2.8; https://github.com/mlc-ai/xgrammar/issues/800)."""


def map_schemas(node: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """Return the schema with ``change`` applied to it, and then to the schemas inside the result."""
    if isinstance(node, list):
        return [map_schemas(item, change) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        key: {name: map_schemas(part, change) for name, part in value.items()}
        if key in ("properties", "$defs")
        else value
        if key in ("enum", "const", "required", "default", "examples")
        else map_schemas(value, change)
        for key, value in change(node).items()
    }


def close_objects(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the schema with objects that allow no further properties, which only narrows it.

    An object that names a schema for further properties stays as it is. So does a schema with ``allOf``, whose parts
    would exclude each other.
    """
    has_all_of = False

    def close(node: dict[str, Any]) -> dict[str, Any]:
        nonlocal has_all_of
        has_all_of = has_all_of or "allOf" in node
        kinds = node.get("type", "object" if "properties" in node else None)
        is_object = kinds == "object" or (isinstance(kinds, list) and "object" in kinds)
        if is_object and isinstance(node.get("additionalProperties", True), bool):
            return node | {"additionalProperties": False}
        return node

    closed: Mapping[str, Any] = map_schemas(schema, close)
    return schema if has_all_of else closed


def describe_constraints(node: Any, constraints: Sequence[str]) -> Any:
    """Return the schema with the unsupported ``constraints`` moved to the descriptions."""

    def describe(schema: dict[str, Any]) -> dict[str, Any]:
        moved = [name for name in constraints if name in schema and not (name == "minItems" and schema[name] <= 1)]
        return move_to_description(schema, moved)

    return map_schemas(node, describe)


def move_to_description(schema: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return the schema with the keywords ``names``, which it has, as text in its description."""
    if not names:
        return schema
    descriptions = f"({', '.join(f'{name}: {schema[name]}' for name in names)})"
    text = " ".join(part for part in (schema.get("description"), descriptions) if part)
    return {name: value for name, value in schema.items() if name not in names} | {"description": text}
