"""Finds what makes a JSON Schema of a person invalid, or too much to check an answer against it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from ctxbackends._suggestions import suggest

FIELD_TYPES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}
"""The types of a field in a list of fields, with those of JSON Schema."""

_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
_UNCHECKED = (
    "not",
    "if",
    "prefixItems",
    "contains",
    "patternProperties",
    "propertyNames",
    "dependentRequired",
    "dependentSchemas",
    "dependencies",
    "additionalItems",
    "unevaluatedItems",
    "unevaluatedProperties",
    "$dynamicRef",
)
"""Keywords that the answer is not checked for here."""


def find_schema_problem(schema: Any) -> str | None:
    """Return why a schema is not valid, or why an answer could not be checked against it; None if it is fine."""
    try:
        return _find_problem(schema, "$", schema)
    except RecursionError:
        return "the schema is nested too deeply"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_pattern(value: object) -> bool:
    try:
        re.compile(value)  # type: ignore[call-overload]  # TypeError if it is not a text
    except (re.error, TypeError):
        return False
    return True


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


_SHAPES: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "required": (_is_texts, "a list of names"),
    "enum": (lambda value: isinstance(value, list) and bool(value), "a list of values"),
    "pattern": (_is_pattern, "a regular expression"),
    "multipleOf": (lambda value: _is_number(value) and value > 0, "a number above 0"),  # type: ignore[operator]  # a number
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), (_is_number, "a number")),
    **dict.fromkeys(
        ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), (_is_count, "a count")
    ),
}


def _find_problem(schema: Any, pointer: str, root: Mapping[str, Any]) -> str | None:
    """Return why a schema is not valid, or cannot be checked here; None if it is fine."""
    if isinstance(schema, bool):
        return None
    if not isinstance(schema, dict):
        return f"{pointer} must be an object, not {json.dumps(schema):.80}"
    kinds = schema.get("type", [])
    for kind in kinds if isinstance(kinds, list) else [kinds]:
        if kind not in _TYPES:
            return f"{pointer}.type is {kind!r}; {suggest(str(kind), _TYPES, FIELD_TYPES)}"
    for name in _UNCHECKED:
        if name in schema:
            return f"{pointer}.{name} is not supported: the answer could not be checked against it"
    for name, (is_right, meaning) in _SHAPES.items():
        if name in schema and not is_right(schema[name]):
            return f"{pointer}.{name} must be {meaning}, not {json.dumps(schema[name]):.80}"
    if "$ref" in schema and not _has_target(schema["$ref"], root):
        return f"{pointer}.$ref is not a definition of this schema: {schema['$ref']}"
    parts = [(name, schema.get(name, True)) for name in ("items", "additionalProperties")]
    for name in ("properties", "$defs", "definitions"):
        members = schema.get(name, {})
        if not isinstance(members, dict):
            return f"{pointer}.{name} must be an object, not {json.dumps(members):.80}"
        parts += [(f"{name}.{key}", part) for key, part in members.items()]
    for name in ("anyOf", "oneOf", "allOf"):
        branches = schema.get(name, [True])
        if not isinstance(branches, list) or not branches:
            return f"{pointer}.{name} must be a list of schemas"
        parts += [(f"{name}[{index}]", part) for index, part in enumerate(branches)]
    problems = (_find_problem(part, f"{pointer}.{name}", root) for name, part in parts)
    return next((problem for problem in problems if problem is not None), None)


def _has_target(reference: object, root: Any) -> bool:
    if not isinstance(reference, str) or not reference.startswith("#"):
        return False
    for step in reference[1:].split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(root, dict) or name not in root:
            return False
        root = root[name]
    return True
