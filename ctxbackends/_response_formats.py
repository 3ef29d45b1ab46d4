"""The forms of `response_format`: a format, a dict in a vendor's form, or a Python type."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from types import GenericAlias
from typing import Any, get_args, get_origin

from ctxbackends._chat.members import Members
from ctxbackends._chat.requests import RESPONSE_FORMATS, JSONObjectFormat, JSONSchemaFormat, ResponseFormat
from ctxbackends._schema.generate import schema_for

_TYPES = ("json_object", "json_schema", "text")
_HINT = "pass a format such as JSONObjectFormat(), a dict such as {'type': 'json_object'}, or a type"


def build_response_format(value: Any) -> ResponseFormat | None:
    """Return the format of the answer, None for text.

    Raises:
        TypeError: The value is none of the forms, or the type has no JSON Schema.
        ValueError: The dict has a member that is unknown or not supported.
    """
    if value is None or isinstance(value, RESPONSE_FORMATS):
        return value
    if isinstance(value, Mapping):
        return _parse_dict(Members(value, "response_format"))
    if isinstance(value, type) and issubclass(value, RESPONSE_FORMATS):
        raise TypeError(f"response_format is a class: {value.__name__}; pass {value.__name__}(...)")
    if isinstance(value, type | GenericAlias) or get_origin(value) is not None or get_args(value):
        return _build_from_type(value)
    raise TypeError(f"not a response_format: {value!r:.80}; {_HINT}")


def name_schema(target: Any) -> str:
    """Return the label of a type's schema for the server."""
    return re.sub(r"[^a-zA-Z0-9_-]", "_", getattr(target, "__name__", "output"))[:64]


def _build_from_type(target: Any) -> JSONSchemaFormat:
    try:
        return _build_cached(target)
    except TypeError:  # not hashable, or without a JSON Schema
        try:
            return _build(target)
        except TypeError as error:
            raise TypeError(f"response_format: {error}") from error.__cause__


def _build(target: Any) -> JSONSchemaFormat:
    return JSONSchemaFormat(name_schema(target), schema_for(target))


_build_cached = functools.lru_cache(maxsize=128)(_build)


def _parse_dict(members: Members) -> ResponseFormat | None:
    kind = members.select("type", _TYPES, {"json": "json_object", "object": "json_object"})
    if kind != "json_schema":
        members.finish()
        return JSONObjectFormat() if kind == "json_object" else None
    is_nested = "json_schema" in members
    inner = members.object("json_schema") if is_nested else members  # OpenAI's chat; its Responses and Anthropic
    name = inner.optional("name", str) or "output"
    schema: Any = inner.require("schema", Mapping)  # type: ignore[type-abstract]  # for isinstance()
    strict = inner.optional("strict", bool)
    description = inner.optional("description", str)
    inner.finish()
    members.finish()
    return JSONSchemaFormat(name, schema, strict=strict, description=description)
