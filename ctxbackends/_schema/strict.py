"""The subset of JSON Schema that vendors accept, and lengths in words where a server misreads them."""

from __future__ import annotations

from collections.abc import Sequence
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


def describe_constraints(node: Any, constraints: Sequence[str]) -> Any:
    """Return the schema with the unsupported ``constraints`` moved to the descriptions."""
    if isinstance(node, list):
        return [describe_constraints(item, constraints) for item in node]
    if not isinstance(node, dict):
        return node
    moved = [name for name in constraints if name in node and not (name == "minItems" and node[name] <= 1)]
    descriptions = [f"{name}: {node[name]}" for name in moved]
    schema = {
        name: {key: describe_constraints(part, constraints) for key, part in value.items()}
        if name in ("properties", "$defs")
        else value
        if name in ("enum", "const", "required")
        else describe_constraints(value, constraints)
        for name, value in node.items()
        if name not in moved
    }
    if descriptions:
        schema["description"] = " ".join(
            part for part in (node.get("description"), f"({', '.join(descriptions)})") if part
        )
    return schema
