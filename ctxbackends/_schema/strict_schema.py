"""The strict form of a JSON Schema, as OpenAI and servers like it enforce it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ctxbackends._schema.strict import map_schemas, move_to_description
from ctxbackends.errors import StrictSchemaError

# https://developers.openai.com/api/docs/guides/structured-outputs#supported-schemas. The lengths of strings are not on
# that list, but enforced (https://github.com/pydantic/pydantic-ai/pull/7400).
_KEYWORDS = frozenset(
    [
        "$ref",
        "const",
        "description",
        "enum",
        "exclusiveMaximum",
        "exclusiveMinimum",
        "format",
        "maxItems",
        "maxLength",
        "maximum",
        "minItems",
        "minLength",
        "minimum",
        "multipleOf",
        "pattern",
        "title",
        "type",
    ]
)
_UNSUPPORTED = (
    "not",
    "if",
    "then",
    "else",
    "dependentRequired",
    "dependentSchemas",
    "dependencies",
    "patternProperties",
    "propertyNames",
    "minProperties",
    "maxProperties",
    "unevaluatedProperties",
    "prefixItems",
    "additionalItems",
    "unevaluatedItems",
    "contains",
    "minContains",
    "maxContains",
    "uniqueItems",
    "$dynamicRef",
)
_FORMATS = ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid")
_LOOKAROUND = ("(?=", "(?!", "(?<=", "(?<!")
_DEFINITIONS = ("$defs", "definitions")
_TYPES: Mapping[type, str] = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}

_DESCRIBABLE = ("uniqueItems", "minProperties", "maxProperties", "contentEncoding")


def strict_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON Schema in the strict form that OpenAI requires with ``strict: true``.

    In that form, each object requires all its properties and allows no others. The result never allows a value that
    ``schema`` does not allow. An optional property becomes required if it has a ``default`` (the model then writes the
    value) or allows null (null then means a missing value).

    Args:
        schema: A JSON Schema (2020-12) of an object.

    Raises:
        StrictSchemaError: The strict form would change the meaning, or has no such keyword, or ``schema`` is not
            valid; see ``pointer`` and ``reason`` of the error.
        TypeError: ``schema`` is not a dict.
    """
    if not isinstance(schema, Mapping):
        raise TypeError(f"a schema must be a dict, not {type(schema).__name__}")
    _check_shape(schema, "")
    root = dict(schema)
    reference = root.pop("$ref", None)
    if reference is not None:
        root = {**_resolve(reference, schema, ""), **root}  # a reference at the root is not supported
    if "anyOf" in root or "oneOf" in root:
        raise StrictSchemaError("", "the root must be an object, not a choice; wrap it in an object")
    if root.get("type", "object" if "properties" in root else None) != "object":
        raise StrictSchemaError("", "the root must be an object; wrap it in an object")
    converter = _Converter(schema)
    definitions = {
        name: {
            key: converter.convert(definition, f"/{name}/{_escape(key)}") for key, definition in schema[name].items()
        }
        for name in _DEFINITIONS
        if name in schema
    }
    return converter.convert({key: value for key, value in root.items() if key not in _DEFINITIONS}, "") | definitions


def describe_unsupported(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema with constraints that strict schemas do not have moved to the descriptions."""

    def describe(node: dict[str, Any]) -> dict[str, Any]:
        formats = ["format"] if node.get("format", _FORMATS[0]) not in _FORMATS else []
        return move_to_description(node, [name for name in _DESCRIBABLE if name in node] + formats)

    described: dict[str, Any] = map_schemas(schema, describe)
    return described


def _escape(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def _resolve(reference: Any, root: Mapping[str, Any], pointer: str) -> Mapping[str, Any]:
    node: Any = root
    if reference == "#":
        return root
    steps = str(reference).split("/")
    if len(steps) == 3 and steps[0] == "#" and steps[1] in _DEFINITIONS:
        node = root.get(steps[1], {}).get(steps[2].replace("~1", "/").replace("~0", "~"))
        if isinstance(node, Mapping):
            return node
    raise StrictSchemaError(f"{pointer}/$ref", f"the reference {reference} is not a definition of this schema")


class _Converter:
    """Converts the schemas within ``root``."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root

    def convert(self, node: Any, pointer: str) -> dict[str, Any]:
        if not isinstance(node, Mapping):
            raise StrictSchemaError(pointer, "a schema must be an object with a type")
        _check_shape(node, pointer)
        node = self._merge_all_of(node, pointer)
        for keyword in _UNSUPPORTED:
            if keyword in node:
                raise StrictSchemaError(f"{pointer}/{keyword}", f"strict schemas do not support {keyword}")
        # Unknown keywords and annotations such as default have no effect in JSON Schema, and are left out.
        strict = {key: value for key, value in node.items() if key in _KEYWORDS}
        if "$ref" in node:
            return self._convert_reference(strict, pointer)
        _check_text(strict, pointer)
        if "oneOf" in node or "anyOf" in node:
            return strict | {"anyOf": self._convert_choice(node, pointer)}
        if "type" not in strict:
            strict["type"] = _infer_type(node, pointer)
        kinds = _list_types(strict)
        if "object" in kinds:
            strict |= self._convert_object(node, pointer)
        if "array" in kinds:
            if "items" not in node:
                raise StrictSchemaError(pointer, "an array needs items")
            strict["items"] = self.convert(node["items"], f"{pointer}/items")
        return strict

    @staticmethod
    def _merge_all_of(node: Mapping[str, Any], pointer: str) -> Mapping[str, Any]:
        """Return the schema with a single ``allOf`` merged into it, which is how generators describe a reference."""
        while "allOf" in node:
            parts = node["allOf"]
            rest = {key: value for key, value in node.items() if key != "allOf"}
            if len(parts) != 1 or not isinstance(parts[0], Mapping) or set(parts[0]) & set(rest) - {"description"}:
                raise StrictSchemaError(f"{pointer}/allOf", "strict schemas do not support allOf")
            node = {**parts[0], **rest}
        return node

    def _convert_reference(self, strict: dict[str, Any], pointer: str) -> dict[str, Any]:
        reference = strict.pop("$ref")
        _resolve(reference, self._root, pointer)
        others = [key for key in strict if key not in ("description", "title")]
        if others:
            raise StrictSchemaError(
                f"{pointer}/{others[0]}", f"strict schemas do not support {others[0]} next to a $ref"
            )
        # A $ref may have no siblings; anyOf may.
        return {**strict, "anyOf": [{"$ref": reference}]} if strict else {"$ref": reference}

    def _convert_choice(self, node: Mapping[str, Any], pointer: str) -> list[dict[str, Any]]:
        name = "oneOf" if "oneOf" in node else "anyOf"
        both = {"oneOf", "anyOf"} & set(node)
        others = {"type", "properties", "items", "additionalProperties", "required", "enum", "const"} & set(node)
        if len(both) > 1 or others:
            raise StrictSchemaError(f"{pointer}/{name}", f"strict schemas do not support {name} with other keywords")
        branches = node[name]
        converted = [self.convert(branch, f"{pointer}/{name}/{index}") for index, branch in enumerate(branches)]
        if name == "oneOf" and not self._are_exclusive(branches):
            raise StrictSchemaError(
                f"{pointer}/oneOf", "strict schemas support oneOf only if no value matches two of its schemas"
            )
        return converted

    def _are_exclusive(self, branches: Sequence[Any]) -> bool:
        resolved = [self._follow(branch) for branch in branches]
        return all(_differ(first, second) for index, first in enumerate(resolved) for second in resolved[index + 1 :])

    def _follow(self, node: Any) -> Mapping[str, Any]:
        """Return the schema behind references; an empty one if there is none."""
        for _ in range(len(self._root.get("$defs", ())) + len(self._root.get("definitions", ())) + 1):
            if not isinstance(node, Mapping):
                return {}
            if "$ref" not in node:
                return node
            node = _resolve(node["$ref"], self._root, "")
        return {}

    def _convert_object(self, node: Mapping[str, Any], pointer: str) -> dict[str, Any]:
        if "properties" not in node and node.get("additionalProperties") is not False:
            raise StrictSchemaError(pointer, "an object needs properties, since strict schemas allow no others")
        if node.get("additionalProperties", False) is not False:
            raise StrictSchemaError(
                f"{pointer}/additionalProperties", "strict schemas allow no properties that are not listed"
            )
        properties = node.get("properties", {})
        required = node.get("required", ())
        unlisted = [name for name in required if name not in properties]
        if unlisted:
            raise StrictSchemaError(f"{pointer}/required", f"the required property {unlisted[0]} is not listed")
        converted = {}
        for name, definition in properties.items():
            place = f"{pointer}/properties/{_escape(name)}"
            converted[name] = self.convert(definition, place)
            if name not in required and definition.get("default") is None and not self._allows_null(definition):
                raise StrictSchemaError(place, "the property is optional; require it, allow null, or give it a default")
        return {"properties": converted, "required": list(properties), "additionalProperties": False}

    def _allows_null(self, node: Any) -> bool:
        node = self._follow(node)
        if "const" in node or "enum" in node:
            return None in node.get("enum", [node.get("const")])
        branches: Iterable[Any] = node.get("anyOf") or node.get("oneOf") or ()
        # A branch that is the node itself again adds nothing.
        return "null" in _list_types(node) or any(
            self._allows_null(branch) for branch in branches if isinstance(branch, Mapping) and "$ref" not in branch
        )


def _check_shape(node: Mapping[str, Any], pointer: str) -> None:
    """Raise StrictSchemaError if a keyword has a value that JSON Schema does not allow."""
    for keyword in ("properties", *_DEFINITIONS):
        if not isinstance(node.get(keyword, {}), Mapping):
            raise StrictSchemaError(f"{pointer}/{keyword}", f"{keyword} must be an object")
    for keyword in ("required", "enum", "anyOf", "oneOf", "allOf"):
        if not isinstance(node.get(keyword, []), list | tuple):
            raise StrictSchemaError(f"{pointer}/{keyword}", f"{keyword} must be a list")
    kinds = _list_types(node) if isinstance(node.get("type", ""), str | list | tuple) else [None]
    for keyword, names in (("type", kinds), ("required", node.get("required", ()))):
        if not all(isinstance(name, str) for name in names):
            raise StrictSchemaError(f"{pointer}/{keyword}", f"{keyword} must have strings")


def _check_text(node: Mapping[str, Any], pointer: str) -> None:
    if "format" in node and node["format"] not in _FORMATS:
        raise StrictSchemaError(
            f"{pointer}/format", f"unsupported format: {node['format']}; use one of {', '.join(_FORMATS)}"
        )
    if any(token in str(node.get("pattern", "")) for token in _LOOKAROUND):
        raise StrictSchemaError(f"{pointer}/pattern", "strict schemas do not support lookaround in a pattern")


def _list_types(node: Mapping[str, Any]) -> Sequence[str]:
    kind = node.get("type", ())
    return [kind] if isinstance(kind, str) else list(kind)


def _infer_type(node: Mapping[str, Any], pointer: str) -> str | list[str]:
    """Return the type that the keywords imply."""
    if "properties" in node:
        return "object"
    if "items" in node:
        return "array"
    values = node["enum"] if "enum" in node else [node["const"]] if "const" in node else []
    kinds = list(dict.fromkeys(_TYPES.get(type(value), "") for value in values))
    if not kinds or "" in kinds:
        raise StrictSchemaError(pointer, "the schema needs a type")
    return kinds[0] if len(kinds) == 1 else kinds


def _differ(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Return whether no value matches both schemas: their types differ, or a property that marks the kind of object."""
    kinds, others = set(_list_types(first)), set(_list_types(second))
    if "number" in kinds | others:  # an integer is a number
        kinds, others = ({"number" if kind == "integer" else kind for kind in each} for each in (kinds, others))
    if kinds and others and not kinds & others:
        return True
    if kinds != {"object"} or others != {"object"}:
        return False
    tags, other_tags = _tags_of(first), _tags_of(second)
    return any(not set(tags[name]) & set(other_tags[name]) for name in tags if name in other_tags)


def _tags_of(node: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the texts that each required property with fixed texts allows."""
    tags = {}
    for name in node.get("required", ()):
        definition = node.get("properties", {}).get(name)
        if isinstance(definition, Mapping):
            values = definition.get("enum") or [definition.get("const")]
            if all(isinstance(value, str) for value in values):
                tags[name] = values
    return tags
