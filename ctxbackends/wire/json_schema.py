"""A Python type to the JSON Schema that servers accept, and an answer's text back to a value of that type. msgspec does
both, and pydantic for its own models; knows no server.

The schema is in the strict form that OpenAI asks for and that constrained decoders like: every property required, no
further properties, no defaults. Making fields that have a default required loses nothing: the model must say them, and
the value is what it said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar, cast

import msgspec

from ctxbackends.errors import StructuredOutputError

T = TypeVar("T")


class _PydanticModel(Protocol):
    """A pydantic model's class, known by its methods: pydantic itself is never imported."""

    def model_json_schema(self) -> dict[str, Any]: ...

    def model_validate_json(self, json_data: str) -> Any: ...


def _as_pydantic_model(target: object) -> _PydanticModel | None:
    if isinstance(target, type) and hasattr(target, "model_json_schema") and hasattr(target, "model_validate_json"):
        return cast(_PydanticModel, target)
    return None


def schema_for(target: type[T]) -> dict[str, Any]:
    """JSON Schema of an attrs class, dataclass, TypedDict, msgspec Struct, pydantic model or built-in type. Raises
    TypeError for what JSON cannot hold."""
    model = _as_pydantic_model(target)
    schema = model.model_json_schema() if model is not None else msgspec.json.schema(target)
    plain = schema.pop("$defs", {})
    definitions = {name: _make_strict(_inline_references(definition, plain)) for name, definition in plain.items()}
    root: dict[str, Any] = _make_strict(_inline_references(schema, plain) if "$ref" not in schema else schema)
    reference = root.pop("$ref", None)
    if reference is not None:
        # The root is inlined, since servers want an object there and not a reference.
        name = reference.removeprefix("#/$defs/")
        root = {**definitions[name], **root}
        if not _has_reference(definitions, reference):
            del definitions[name]
    return {**root, "$defs": definitions} if definitions else root


_WRAPPER_KEY = "value"


def wrap_in_object(schema: Mapping[str, Any]) -> dict[str, Any]:
    """An object that holds what ``schema`` describes."""
    inner = {name: part for name, part in schema.items() if name != "$defs"}
    box = {
        "type": "object",
        "properties": {_WRAPPER_KEY: inner},
        "required": [_WRAPPER_KEY],
        "additionalProperties": False,
    }
    return {**box, **({"$defs": schema["$defs"]} if "$defs" in schema else {})}


def unwrap_object(text: str) -> str:
    """What the object holds, as JSON text; ``text`` itself where it is no such object, for the validation to tell."""
    try:
        return bytes(msgspec.json.decode(text, type=dict[str, msgspec.Raw])[_WRAPPER_KEY]).decode()
    except (msgspec.DecodeError, UnicodeError, RecursionError, KeyError):
        return text


def _inline_references(node: Any, definitions: Mapping[str, Any]) -> Any:
    """References that stand beside something else are put in: strict schemas take them alone."""
    if isinstance(node, list):
        return [_inline_references(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node and len(node) > 1:
        beside = {name: part for name, part in node.items() if name != "$ref"}
        node = {**definitions[node["$ref"].removeprefix("#/$defs/")], **beside}
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
"""xgrammar, which vLLM comes with, lets a text of bounded length hold no escape: no quotation mark, no backslash and no
line break (measured, 0.2.8; https://github.com/mlc-ai/xgrammar/issues/800)."""


def describe_constraints(node: Any, constraints: Sequence[str]) -> Any:
    """A schema without the ``constraints`` that a server refuses or misreads; the description says them instead."""
    if isinstance(node, list):
        return [describe_constraints(item, constraints) for item in node]
    if not isinstance(node, dict):
        return node
    loose = [name for name in constraints if name in node and not (name == "minItems" and node[name] <= 1)]
    said = [f"{name}: {node[name]}" for name in loose]
    kept = {
        name: {key: describe_constraints(part, constraints) for key, part in value.items()}
        if name in ("properties", "$defs")
        else value
        if name in ("enum", "const", "required")
        else describe_constraints(value, constraints)
        for name, value in node.items()
        if name not in loose
    }
    if said:
        kept["description"] = " ".join(part for part in (node.get("description"), f"({', '.join(said)})") if part)
    return kept


def decode_as(target: type[T], text: str) -> T:
    """The answer's text as a validated ``target``. Raises StructuredOutputError with the place of the fault."""
    model = _as_pydantic_model(target)
    if model is not None:
        return cast(T, _validate_model(model, text))
    try:
        return msgspec.json.decode(text.encode("utf-8", "surrogatepass"), type=target)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # msgspec's wording: "... - at `$.title`", and "... - at `key` in `$.counts`" for the key of a mapping.
        problem, _, place = str(error).rpartition(" - at `")
        raise StructuredOutputError(
            f"the answer is no valid {getattr(target, '__name__', target)}: {error}",
            text=text,
            pointer=place.removesuffix("`").rpartition("`")[2] if problem else None,
        ) from error


def _validate_model(model: _PydanticModel, text: str) -> Any:
    try:
        return model.model_validate_json(text)
    except ValueError as error:  # pydantic's ValidationError is one
        found: Sequence[Mapping[str, Any]] = getattr(error, "errors", tuple)()
        first = found[0] if found else {}
        place = _format_pointer(first.get("loc", ()))
        problem = first.get("msg", error)
        where = f" - at `{place}`" if place else ""
        name = getattr(model, "__name__", "value")
        raise StructuredOutputError(
            f"the answer is no valid {name}: {problem}{where}", text=text, pointer=place
        ) from error


def _format_pointer(location: Sequence[str | int]) -> str | None:
    """A place in msgspec's notation, None for the whole."""
    if not location:
        return None
    return "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)
