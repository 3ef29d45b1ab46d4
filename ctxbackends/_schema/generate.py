"""A Python type to a JSON Schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar, cast, get_args

import msgspec

from ctxbackends._schema.strict import map_schemas

T = TypeVar("T")


class PydanticModel(Protocol):
    """The class of a pydantic model, recognized by its methods: pydantic itself is never imported."""

    def model_json_schema(self) -> dict[str, Any]: ...

    def model_validate_json(self, json_data: str) -> Any: ...


def as_pydantic_model(target: object) -> PydanticModel | None:
    if isinstance(target, type) and hasattr(target, "model_json_schema") and hasattr(target, "model_validate_json"):
        return cast("PydanticModel", target)
    return None


def schema_for(target: type[T]) -> dict[str, Any]:
    """Return the JSON Schema of an attrs class, dataclass, TypedDict, msgspec Struct, pydantic model or built-in type.

    Raises:
        TypeError: JSON cannot represent the type.
    """
    schema = _generate(target)
    plain = schema.pop("$defs", {})
    definitions = {
        name: map_schemas(_inline_references(definition, plain), _require_properties)
        for name, definition in plain.items()
    }
    root: dict[str, Any] = map_schemas(
        _inline_references(schema, plain) if "$ref" not in schema else schema, _require_properties
    )
    reference = root.pop("$ref", None)
    if reference is not None:
        # Inline the root: servers require an object there, not a reference.
        name = reference.removeprefix("#/$defs/")
        root = {**definitions[name], **root}
        if not _has_reference(definitions, reference):
            del definitions[name]
    return {**root, "$defs": definitions} if definitions else root


def _generate(target: Any) -> dict[str, Any]:
    model = as_pydantic_model(target)
    if model is not None:
        return model.model_json_schema()
    try:
        return msgspec.json.schema(target)
    except TypeError as error:
        name = target.__name__ if isinstance(target, type) else f"{target!r:.80}"
        reason = str(error).rpartition("\n")[2]  # before it, the options of msgspec that the SDK does not have
        raise TypeError(f"cannot create a JSON Schema for {name}: {reason}; {_find_hint(target)}") from error


_TYPES_HINT = "use an attrs class, dataclass, TypedDict, msgspec Struct, pydantic model or built-in type"


def _find_hint(target: Any) -> str:
    if _contains_pydantic_model(target):
        return "a pydantic model must be the whole type: wrap this type in a field of one"
    return _TYPES_HINT


def _contains_pydantic_model(target: Any) -> bool:
    return any(as_pydantic_model(part) is not None or _contains_pydantic_model(part) for part in get_args(target))


WRAPPER_KEY = "value"


def wrap_in_object(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of an object whose one member matches ``schema``."""
    inner = {name: part for name, part in schema.items() if name != "$defs"}
    wrapper = {
        "type": "object",
        "properties": {WRAPPER_KEY: inner},
        "required": [WRAPPER_KEY],
        "additionalProperties": False,
    }
    return {**wrapper, **({"$defs": schema["$defs"]} if "$defs" in schema else {})}


def _inline_references(node: Any, definitions: Mapping[str, Any]) -> Any:
    """Replace references that have siblings: strict schemas allow none."""

    def inline(schema: dict[str, Any]) -> dict[str, Any]:
        if "$ref" not in schema or len(schema) == 1:
            return schema
        siblings = {name: part for name, part in schema.items() if name != "$ref"}
        return {**definitions[schema["$ref"].removeprefix("#/$defs/")], **siblings}

    return map_schemas(node, inline)


def _require_properties(schema: dict[str, Any]) -> dict[str, Any]:
    strict = {key: value for key, value in schema.items() if key != "default"}
    if "properties" in strict:
        strict["required"] = list(strict["properties"])
        strict.setdefault("additionalProperties", False)
    return strict


def _has_reference(node: Any, reference: str) -> bool:
    if isinstance(node, dict):
        return node.get("$ref") == reference or any(_has_reference(value, reference) for value in node.values())
    return isinstance(node, list) and any(_has_reference(item, reference) for item in node)
