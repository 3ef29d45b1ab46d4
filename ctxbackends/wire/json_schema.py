"""Generates JSON Schema from Python types, and validates JSON text against them, for every server.

msgspec does both; pydantic does for its own models. The schemas have the strict form that OpenAI requires and
constrained decoders prefer: every property required, no additional properties, no defaults. Requiring the fields that
have a default loses nothing: the model must write them, and the value is the one it wrote.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar, cast

import msgspec

from ctxbackends.errors import StructuredOutputError

T = TypeVar("T")


class _PydanticModel(Protocol):
    """The class of a pydantic model, recognized by its methods: pydantic itself is never imported."""

    def model_json_schema(self) -> dict[str, Any]: ...

    def model_validate_json(self, json_data: str) -> Any: ...


def _as_pydantic_model(target: object) -> _PydanticModel | None:
    if isinstance(target, type) and hasattr(target, "model_json_schema") and hasattr(target, "model_validate_json"):
        return cast(_PydanticModel, target)
    return None


def schema_for(target: type[T]) -> dict[str, Any]:
    """Return the JSON Schema of an attrs class, dataclass, TypedDict, msgspec Struct, pydantic model or built-in type.

    Raises:
        TypeError: JSON cannot represent the type.
    """
    model = _as_pydantic_model(target)
    schema = model.model_json_schema() if model is not None else msgspec.json.schema(target)
    plain = schema.pop("$defs", {})
    definitions = {name: _make_strict(_inline_references(definition, plain)) for name, definition in plain.items()}
    root: dict[str, Any] = _make_strict(_inline_references(schema, plain) if "$ref" not in schema else schema)
    reference = root.pop("$ref", None)
    if reference is not None:
        # Inline the root: servers require an object there, not a reference.
        name = reference.removeprefix("#/$defs/")
        root = {**definitions[name], **root}
        if not _has_reference(definitions, reference):
            del definitions[name]
    return {**root, "$defs": definitions} if definitions else root


_WRAPPER_KEY = "value"


def wrap_in_object(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of an object whose one member matches ``schema``."""
    inner = {name: part for name, part in schema.items() if name != "$defs"}
    wrapper = {
        "type": "object",
        "properties": {_WRAPPER_KEY: inner},
        "required": [_WRAPPER_KEY],
        "additionalProperties": False,
    }
    return {**wrapper, **({"$defs": schema["$defs"]} if "$defs" in schema else {})}


def unwrap_object(text: str) -> str:
    """Return the wrapped value as JSON text; ``text`` itself if it is not wrapped, so that validation fails."""
    try:
        return bytes(msgspec.json.decode(text, type=dict[str, msgspec.Raw])[_WRAPPER_KEY]).decode()
    except (msgspec.DecodeError, UnicodeError, RecursionError, KeyError):
        return text


def _inline_references(node: Any, definitions: Mapping[str, Any]) -> Any:
    """Replace references that have siblings: strict schemas allow none."""
    if isinstance(node, list):
        return [_inline_references(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node and len(node) > 1:
        siblings = {name: part for name, part in node.items() if name != "$ref"}
        node = {**definitions[node["$ref"].removeprefix("#/$defs/")], **siblings}
    return {name: _inline_references(part, definitions) for name, part in node.items()}


def _make_strict(node: Any) -> Any:
    if isinstance(node, list):
        return [_make_strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    strict = {
        key: {name: _make_strict(part) for name, part in value.items()}
        if key == "properties"
        else value
        if key in ("enum", "const")
        else _make_strict(value)
        for key, value in node.items()
        if key != "default"
    }
    if "properties" in strict:
        strict["required"] = list(strict["properties"])
        strict.setdefault("additionalProperties", False)
    return strict


def _has_reference(node: Any, reference: str) -> bool:
    if isinstance(node, dict):
        return node.get("$ref") == reference or any(_has_reference(value, reference) for value in node.values())
    return isinstance(node, list) and any(_has_reference(item, reference) for item in node)


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


def decode_as(target: type[T], text: str) -> T:
    """Decode and validate the text of a response.

    Raises:
        StructuredOutputError: The text does not match ``target``.
    """
    model = _as_pydantic_model(target)
    if model is not None:
        return cast(T, _validate_model(model, text))
    try:
        return msgspec.json.decode(text.encode("utf-8", "surrogatepass"), type=target)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # msgspec's message: "... - at `$.title`", and "... - at `key` in `$.counts`" for the key of a mapping.
        problem, _, location = str(error).rpartition(" - at `")
        raise StructuredOutputError(
            f"response does not match {getattr(target, '__name__', target)}: {error}",
            text=text,
            pointer=location.removesuffix("`").rpartition("`")[2] if problem else None,
        ) from error


def _validate_model(model: _PydanticModel, text: str) -> Any:
    try:
        return model.model_validate_json(text)
    except ValueError as error:  # pydantic's ValidationError is one
        errors: Sequence[Mapping[str, Any]] = getattr(error, "errors", tuple)()
        first = errors[0] if errors else {}
        location = _format_pointer(first.get("loc", ()))
        problem = first.get("msg", error)
        where = f" - at `{location}`" if location else ""
        name = getattr(model, "__name__", "value")
        raise StructuredOutputError(
            f"response does not match {name}: {problem}{where}", text=text, pointer=location
        ) from error


def _format_pointer(location: Sequence[str | int]) -> str | None:
    """Return the location in msgspec's notation, None for the whole value."""
    if not location:
        return None
    return "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)
