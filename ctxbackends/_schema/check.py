"""Checks a JSON value against the structure that a JSON Schema describes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import Any, NamedTuple

from ctxbackends.errors import StructuredOutputError

_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}


class _Root(NamedTuple):
    schema: Mapping[str, Any]
    has_constraints: bool


def check_structure(schema: Mapping[str, Any], value: Any, *, text: str, constraints: bool = False) -> None:
    """Check a JSON value for types, missing and unknown members, and fixed values, at every depth.

    Args:
        schema: The JSON Schema.
        value: The value.
        text: The JSON text of the value, for the error.
        constraints: Check bounds, lengths, patterns and the values of further members too.

    Raises:
        StructuredOutputError: The value does not match the schema; see ``pointer`` of the error.
    """
    try:
        mismatch = next(_find_problems(schema, value, "$", _Root(schema, constraints)), None)
    except RecursionError as error:
        raise StructuredOutputError("the value or its schema is nested too deeply", text=text) from error
    if mismatch is not None:
        pointer, problem = mismatch
        raise StructuredOutputError(f"{problem} - at `{pointer}`", text=text, pointer=pointer)


def _find_problems(schema: Any, value: Any, pointer: str, root: _Root) -> Iterator[tuple[str, str]]:
    if not isinstance(schema, Mapping):  # true and false
        if schema is False:
            yield pointer, "no value is allowed"
        return
    if "$ref" in schema:
        yield from _find_problems(_resolve(schema["$ref"], root.schema), value, pointer, root)
    kinds = schema.get("type", ())
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(_is_type(value, kind) for kind in kinds):
        yield pointer, f"expected {' or '.join(kinds)}, got {_name_type(value)}"
    for fixed in [[schema["const"]]] if "const" in schema else [schema["enum"]] if "enum" in schema else []:
        if not any(value == item and isinstance(value, bool) == isinstance(item, bool) for item in fixed):
            yield pointer, f"expected one of {fixed}, got {value!r:.80}"
    for name in ("anyOf", "oneOf"):
        branches = schema.get(name)
        if branches and all(any(_find_problems(branch, value, pointer, root)) for branch in branches):
            yield pointer, "no alternative of the schema matches"
    for branch in schema.get("allOf", ()):
        yield from _find_problems(branch, value, pointer, root)
    if isinstance(value, dict):
        yield from _find_member_problems(schema, value, pointer, root)
    elif isinstance(value, list) and "items" in schema and "prefixItems" not in schema:
        for index, item in enumerate(value):
            yield from _find_problems(schema["items"], item, f"{pointer}[{index}]", root)
    if root.has_constraints:
        yield from ((pointer, problem) for problem in _find_constraints(schema, value))


def _find_member_problems(
    schema: Mapping[str, Any], value: dict[str, Any], pointer: str, root: _Root
) -> Iterator[tuple[str, str]]:
    for name in schema.get("required", ()):
        if name not in value:
            yield pointer, f"missing member: {name}"
    properties = schema.get("properties", {})
    for name, member in value.items():
        if name in properties:
            yield from _find_problems(properties[name], member, f"{pointer}.{name}", root)
        elif "patternProperties" not in schema and schema.get("additionalProperties") is False:
            yield pointer, f"unknown member: {name}"
        elif root.has_constraints and "additionalProperties" in schema:
            yield from _find_problems(schema["additionalProperties"], member, f"{pointer}.{name}", root)


_BOUNDS: Mapping[str, Callable[[float, float], bool]] = {
    "minimum": lambda value, bound: value >= bound,
    "maximum": lambda value, bound: value <= bound,
    "exclusiveMinimum": lambda value, bound: value > bound,
    "exclusiveMaximum": lambda value, bound: value < bound,
    "multipleOf": lambda value, factor: Fraction(str(value)) % Fraction(str(factor)) == 0,
}
_LENGTHS = {str: ("minLength", "maxLength"), list: ("minItems", "maxItems"), dict: ("minProperties", "maxProperties")}


def _find_constraints(schema: Mapping[str, Any], value: Any) -> Iterator[str]:
    """Yield the keywords of a schema for bounds, lengths and patterns that a value does not match."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        for name, is_met in _BOUNDS.items():
            if name in schema and not is_met(value, schema[name]):
                yield f"{value} does not match {name}: {schema[name]}"
    if isinstance(value, str | list | dict):
        least, most = _LENGTHS[type(value)]
        if len(value) < schema.get(least, 0):
            yield f"shorter than {least}: {schema[least]}"
        if len(value) > schema.get(most, len(value)):
            yield f"longer than {most}: {schema[most]}"
    if isinstance(value, str) and "pattern" in schema and re.search(schema["pattern"], value) is None:
        yield f"{value!r:.80} does not match the pattern {schema['pattern']}"
    if (
        isinstance(value, list)
        and schema.get("uniqueItems")
        and any(_is_same(item, other) for index, item in enumerate(value) for other in value[:index])
    ):
        yield "the items are not unique"


def _is_same(one: Any, other: Any) -> bool:
    """Return whether two JSON values are equal; True is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_is_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_is_same(one[name], other[name]) for name in one)
    return bool(one == other)


def _is_type(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES.get(kind, object))


def _name_type(value: Any) -> str:
    return next(name for name in ("boolean", "integer", *_TYPES) if _is_type(value, name))


def _resolve(reference: Any, root: Mapping[str, Any]) -> Any:
    """Return the schema that a reference names; True, which allows any value, if it is elsewhere."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return True
    node: Any = root
    for step in reference[1:].split("/")[1:]:
        node = node.get(step.replace("~1", "/").replace("~0", "~"), True) if isinstance(node, Mapping) else True
    return node
